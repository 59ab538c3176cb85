"""`nucseg distill`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nucseg_pipeline.cli.console import notes, out, progress_bar
from nucseg_pipeline.cli.options import options_from
from nucseg_pipeline.config import DistillConfig

if TYPE_CHECKING:
    from nucseg_pipeline.runs.history import EpochRecord


@options_from(
    DistillConfig,
    {
        "Data": "dataset cache split fold",
        "Embeddings": "teacher weights precision format views",
        "Training": "size epochs batch_size learning_rate mixed_precision seed",
        "Machine": "device threads",
        "Output": "out",
    },
)
def distill(config: DistillConfig, recipe: str | None) -> None:
    """Train a small, fast encoder (a student) to reproduce the cached embeddings of a large one.

    Reads CACHE/DATASET.zarr; neither the large encoder nor the native images are needed. Writes student.safetensors for
    `--encoder student:FILE`, fidelity.json, card.md, epochs.csv and checkpoints. The same command continues a
    distillation that was stopped.
    """
    from nucseg_pipeline.config.recipe import load_record

    run_distill(config, load_record(recipe) if recipe else "")


def run_distill(config: DistillConfig, recorded: str) -> None:
    """Distill and print the result; `recorded` is the digest that the recipe records, or empty."""
    from nucseg_pipeline.distill.stage import distill as distill_stage

    with progress_bar("steps") as progress:
        result = distill_stage(config, progress, _show, notes)
    n_trained = result.epochs_trained
    trained = f"{n_trained} epoch{'s' if n_trained != 1 else ''} trained" if n_trained else "was finished already"
    out.print(f"{trained}; best of {result.epochs}: epoch {result.best_epoch}")
    for name, found in result.fidelity.items():
        fits = ", ".join(f"{measure.replace('_', ' ')} {value.value:.3f}" for measure, value in found.student.items())
        unseen = ", ".join(f"{value.value:.3f}" for value in found.pattern.values())
        out.print(f"{name}, {found.n_images} test images: {fits} (the mean embedding at each place: {unseen})")
    if recorded:
        same = (
            "as the recipe records"
            if recorded == result.digest
            else f"different from the one in the recipe ({recorded})"
        )
        out.print(f"xxh128 {result.digest}, {same}")
    out.print(f"student: {result.file} ({result.n_bytes / 1e6:.2f} MB)")


def _show(row: EpochRecord) -> None:
    out.print(
        f"epoch {row.epoch}: training loss {row.train_loss:.4f}, validation loss {row.validation_loss:.4f}, "
        f"{row.seconds:.1f} s"
    )
