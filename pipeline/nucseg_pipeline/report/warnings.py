"""Warnings of a report: limitations of the scores."""

from __future__ import annotations

from collections.abc import Sequence

from nucseg.data.files import some
from nucseg.data.official_splits import plain_name
from nucseg.encoders import images_learned
from nucseg.encoders.student.metadata import IMAGE_DIGITS
from nucseg_pipeline.datasets.locate import SYNTHETIC
from nucseg_pipeline.evaluation.experiments import Configuration
from nucseg_pipeline.evaluation.scores import RunScores
from nucseg_pipeline.evaluation.test_sets import TestSet, image_file, seen_files
from nucseg_pipeline.runs.digests import code_digest
from nucseg_pipeline.runs.provenance import SHOWN
from nucseg_pipeline.runs.run import Run, encoder_files

NEAR_EMPTY = 0.1
"""Recall of nucleus pixels below which a network finds almost nothing."""

FEW_GROUPS = 10
"""With fewer groups than this, bootstrap intervals are too narrow."""


def report_warnings(test_set: TestSet, configurations: Sequence[Configuration]) -> tuple[str, ...]:
    """Warn of synthetic images, untrained encoders, changed inputs, and test images that were used for training."""
    warnings = []
    runs = {name: run for configuration in configurations for name, run in configuration.runs.items()}
    datasets = {test_set.store.dataset, *(run.store.dataset for run in runs.values())}
    if any(plain_name(name) == SYNTHETIC for name in datasets):
        warnings.append(
            "The images are synthetic: drawn by nucseg, not photographed. The scores show that every stage works; they "
            "say nothing about tissue."
        )
    names_by_note: dict[str, list[str]] = {}
    for name, run in runs.items():
        for note in (
            _encoder_note(run),
            _copies_note(run, test_set, name),
            _student_note(run, test_set, name),
            *_changes_notes(run),
        ):
            names_by_note.setdefault(note, []).append(name)
    return (*warnings, *(f"{', '.join(names)}: {note}" for note, names in names_by_note.items() if note))


def _encoder_note(run: Run) -> str:
    """The note recorded with the encoder; random weights are named in any case."""
    note = str(run.provenance.get("encoder_note", ""))
    if not note and run.provenance.get("embedding", {}).get("architecture") == "random":
        return "The encoder has random weights: its embeddings carry no knowledge of nuclei."
    return note


def _changes_notes(run: Run) -> tuple[str, ...]:
    provenance = run.provenance
    changed, resumed_by = provenance.get("changed_since", ()), provenance.get("changed_while_training", ())
    code = provenance.get("code_digest") or code_digest()
    return (
        f"{len(changed)} training or validation images have changed in the cache, or are gone, since the run was "
        f"trained (such as {changed[0]}): training again would give another network."
        if changed
        else "",
        f"Training was resumed in another environment than it was started in: {'; '.join(resumed_by)}."
        if resumed_by
        else "",
        f"The run was trained with another version of nucseg's code ({code[:SHOWN]}) than this report uses ("
        f"{code_digest()[:SHOWN]})."
        if code != code_digest()
        else "",
    )


def _copies_note(run: Run, test_set: TestSet, name: str) -> str:
    """Say whether the file of a test image was also, under another name, used for training or validation."""
    if test_set.store_for(run) is not run.store:
        return ""  # on another data set such images are left out
    seen, tested = seen_files([run]), test_set.ids.get(name, ())
    copies = [image_id for image_id in tested if seen.intersection(image_file(run, image_id))]
    if not copies:
        return ""
    return (
        f"{len(copies)} of {len(tested)} test images (such as {copies[0]}) are the same files as training or "
        "validation images under other names: the scores are optimistic."
    )


def _student_note(run: Run, test_set: TestSet, name: str) -> str:
    """Say whether the encoder of a run is a student that was distilled from test images."""
    learned, tested = images_learned(run.inputs.embedding, encoder_files(run.config)), test_set.ids.get(name, ())
    if not learned:
        return ""
    store = test_set.store_for(run)
    seen = [
        image_id
        for image_id in tested
        if store.info(store.row_of(image_id)).image_digest.hex()[:IMAGE_DIGITS] in learned
    ]
    if not seen:
        return ""
    return (
        f"The encoder was distilled from {len(seen)} of {len(tested)} test images (such as {seen[0]}) and imitates its "
        "teacher better on these than on others: the scores are optimistic. Distill a student without them, or use its "
        "teacher."
    )


def few_groups_note(scores: RunScores) -> tuple[str, ...]:
    """Say that bootstrap intervals of a few groups are too narrow: of 3 groups they cover about 75 %, not 95 %."""
    n_groups = scores.n_groups
    if not 1 < n_groups < FEW_GROUPS:
        return ()
    return (
        f"The images come from only {n_groups} groups: bootstrap intervals of fewer than {FEW_GROUPS} groups are too "
        "narrow.",
    )


def no_nuclei_note(scores: RunScores) -> tuple[str, ...]:
    """Say how many images have no true nuclei, because empty predictions score 1 on them."""
    without = [image.id for image in scores.images if image.n_true == 0]
    if not without:
        return ()
    return (
        f"{len(without)} of {len(scores.images)} images have no true nuclei ({some(without)}): there, the Dice of a "
        "prediction without nuclei is 1, of any other 0.",
    )


def near_empty_warning(columns: Sequence[RunScores]) -> tuple[str, ...]:
    """Warn of configurations that find almost nothing: a difference between two of them means little."""
    recalls = []
    for column in columns:
        found = sum(image.counts.tp for image in column.predictions)
        true = sum(image.counts.tp + image.counts.fn for image in column.predictions)
        if found < NEAR_EMPTY * true:
            recalls.append(f"{column.name} ({found / true:.1%})")
    if not recalls:
        return ()
    return (
        f"Almost no nuclei are found; share of the true nucleus pixels: {', '.join(recalls)}. A configuration with so "
        "low a recall has failed on these images, and a difference between two failed ones is no improvement.",
    )
