"""What keeps figures from meaning what they seem to mean."""

from __future__ import annotations

from collections.abc import Sequence

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

FINDS_LITTLE = 0.1
"""Share of the true nucleus pixels below which a network hardly finds anything."""

FEW_GROUPS = 10
"""Below so many groups an interval is told to be too narrow."""


def cautions(exam: TestSet, entrants: Sequence[Configuration]) -> tuple[str, ...]:
    """Warn of drawn images, of encoders without knowledge, and of test images that were learned from."""
    warnings = []
    runs = {name: run for entrant in entrants for name, run in entrant.runs.items()}
    datasets = {exam.store.dataset, *(run.store.dataset for run in runs.values())}
    if any(plain_name(name) == SYNTHETIC for name in datasets):
        warnings.append(
            "The images are synthetic: drawn by nucseg, not photographed. The figures show that every stage works; "
            "they say nothing about tissue."
        )
    names_by_note: dict[str, list[str]] = {}
    for name, run in runs.items():
        for note in (
            _encoder_note(run),
            _copies_note(run, exam, name),
            _student_note(run, exam, name),
            *_changes_notes(run),
        ):
            names_by_note.setdefault(note, []).append(name)
    return (*warnings, *(f"{', '.join(names)}: {note}" for note, names in names_by_note.items() if note))


def _encoder_note(run: Run) -> str:
    """Say what the encoder of a run says of itself; one of random weights is named in any case."""
    note = str(run.provenance.get("encoder_note", ""))
    if not note and run.provenance.get("embedding", {}).get("architecture") == "random":
        return "The encoder has random weights: its embeddings carry no knowledge of nuclei."
    return note


def _changes_notes(run: Run) -> tuple[str, ...]:
    """Say what is not as it was when the run was trained, or was not the same all the while."""
    made = run.provenance
    learned, resumed_by = made.get("changed_since", ()), made.get("changed_while_training", ())
    code = made.get("code_digest") or code_digest()
    return (
        f"{len(learned)} of the images that were learned from have changed in the cache or vanished since (such as "
        f"{learned[0]}): trained again, the network would be another one."
        if learned
        else "",
        f"Training was resumed by others than had begun it: {'; '.join(resumed_by)}." if resumed_by else "",
        f"The code of nucseg that trained ({code[:SHOWN]}) is not the one that makes this report ("
        f"{code_digest()[:SHOWN]})."
        if code != code_digest()
        else "",
    )


def _copies_note(run: Run, exam: TestSet, name: str) -> str:
    """Say whether an image file of the test part is, under another name, among those that were learned from."""
    if exam.store_for(run) is not run.store:
        return ""  # on another data set such images are left out
    learned, tested = seen_files([run]), exam.ids.get(name, ())
    copies = [one for one in tested if learned.intersection(image_file(run, one))]
    if not copies:
        return ""
    return (
        f"{len(copies)} of {len(tested)} test images (such as {copies[0]}) are the very files of training or "
        "validation images under other names: the scores promise too much."
    )


def _student_note(run: Run, exam: TestSet, name: str) -> str:
    """Say whether the encoder of a run is a student that has learned from images of the test part."""
    learned, tested = images_learned(run.inputs.embedding, encoder_files(run.config)), exam.ids.get(name, ())
    if not learned:
        return ""
    store = exam.store_for(run)
    seen = [one for one in tested if store.info(store.row_of(one)).image_digest.hex()[:IMAGE_DIGITS] in learned]
    if not seen:
        return ""
    return (
        f"The encoder was distilled from {len(seen)} of {len(tested)} test images (such as {seen[0]}), which it "
        "imitates better than others: the scores promise too much. Distill one that leaves them out, or take its "
        "teacher."
    )


def few_groups_note(scores: RunScores) -> tuple[str, ...]:
    """Say that the bootstrap of a handful of groups promises too much: of 3 it covers about three in four."""
    n_groups = scores.n_groups
    if not 1 < n_groups < FEW_GROUPS:
        return ()
    return (
        f"The images come from {n_groups} groups only: bootstrap intervals of fewer than {FEW_GROUPS} groups are too "
        "narrow.",
    )


def near_empty_warning(columns: Sequence[RunScores]) -> tuple[str, ...]:
    """Warn of configurations that find next to nothing: a difference between two such is no success."""
    told = []
    for column in columns:
        found = sum(image.counts.tp for image in column.predictions)
        true = sum(image.counts.tp + image.counts.fn for image in column.predictions)
        if found < FINDS_LITTLE * true:
            told.append(f"{column.name} ({found / true:.1%})")
    if not told:
        return ()
    return (
        f"Share of the true nucleus pixels that is found: {', '.join(told)}. That is next to nothing: on these images "
        "it has failed, and a difference between two that have failed is no success.",
    )
