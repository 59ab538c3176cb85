"""What a report warns of."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import xxhash
from safetensors.numpy import save as safetensors_of

from nucseg.encoders.student.metadata import FORMAT, Origin
from tests.pipeline.report.drawn import N_IMAGES, ROWS, SIDE, DrawnRun, Page, Report


def test_synthetic_images_and_a_random_encoder_are_warned_of(make: Report) -> None:
    run = DrawnRun("run", error=1.0, dataset="synthetic@macenko")
    run.provenance = {"embedding": {"architecture": "random"}}
    result = make({"run": run}, page=True)
    text = Page(result.page.read_text()).text

    assert len(result.summaries[0].warnings) == 2
    assert "The images are synthetic" in text
    assert "random weights" in text
    assert (result.folder / "summary.md").read_text().count("**Warning.**") == 2


def test_a_student_that_learned_from_test_images_is_warned_of(
    make: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(tmp_path))
    runs = {"seen": DrawnRun("seen", error=0.5), "unseen": DrawnRun("unseen", error=0.5)}
    beginning = {"seen": next(iter(ROWS.values())).image_digest.hex()[:16], "unseen": "f" * 16}
    for name, run in runs.items():
        origin = Origin("small", {"architecture": "vit_b"}, {"mine": {"learned_images": [beginning[name]]}}, "")
        content = safetensors_of({"place": np.zeros(3, np.float32)}, {FORMAT: json.dumps(asdict(origin))})
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        run.inputs.embedding = {"architecture": "student", "weights": xxhash.xxh128_hexdigest(content)}

    (summary,) = make(runs).summaries

    (warning,) = [text for text in summary.warnings if "distilled" in text]
    # the digests of the drawn images all begin alike
    assert warning.startswith(
        f"seen: The encoder was distilled from {N_IMAGES} of {N_IMAGES} test images (such as organ"
    )


def test_a_network_that_finds_almost_nothing_is_warned_of(make: Report) -> None:
    blind = DrawnRun("", error=1.0)
    blind.probability = lambda sample: np.zeros((SIDE, SIDE), np.float32)  # type: ignore[method-assign]
    found = make({"blind": blind, "run": DrawnRun("", error=0.8)}).summaries[0]

    assert [warning for warning in found.warnings if "blind (0.0%)" in warning]
    assert not [warning for warning in found.warnings if "run (" in warning]


def test_copies_of_training_images_in_the_test_part_are_warned_of(make: Report) -> None:
    first = next(iter(ROWS.values()))
    result = make({"run": DrawnRun("", error=1.0, learned=first.image_digest.hex())})

    assert "run: 1 of 6 test images" in result.summaries[0].warnings[0]
    assert first.id in result.summaries[0].warnings[0]
