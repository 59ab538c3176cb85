"""What is said about the masks of a data set."""

from nucseg.data.mask_notes import KINDS, is_mask_note, mask_notes
from nucseg.data.masks import MaskFacts


def test_nothing_is_said_of_usual_instance_maps() -> None:
    assert mask_notes({"a": MaskFacts(), "b": MaskFacts()}) == mask_notes({}) == ()


def test_binary_masks_and_their_pieces_are_counted() -> None:
    (note,) = mask_notes({"a": MaskFacts(n_pieces=31), "b": MaskFacts(), "c": MaskFacts(n_pieces=12)})

    assert note.startswith("2 of 3 masks are binary: 43 pieces; touching nuclei are one.")


def test_classes_are_summed_over_all_masks() -> None:
    (note,) = mask_notes({"a": MaskFacts(classes={"Tumor": 3, "Immune": 9}), "b": MaskFacts(classes={"Tumor": 4})})

    assert note.endswith(": Immune 9, Tumor 7.")


def test_findings_name_the_first_images_and_count_the_rest() -> None:
    facts = {f"image {n}": MaskFacts(findings={"split": f"{n} ids in {2 * n} pieces"}) for n in range(7)}

    (note,) = mask_notes({**facts, "usual": MaskFacts()})

    assert note.startswith("7 of 8 masks have ids in several pieces: image 0 (0 ids in 0 pieces), image 1")
    assert "image 4 (4 ids in 8 pieces) and 2 more. Check" in note


def test_notes_on_masks_are_recognised_among_others() -> None:
    every = MaskFacts(n_pieces=3, classes={"Tumor\nof 3": 1}, findings=dict.fromkeys(KINDS, "3"))

    notes = mask_notes({"a\nb": every})

    assert len(notes) == 2 + len(KINDS)
    assert all(is_mask_note(note) for note in notes)
    assert is_mask_note(
        "3 of 12 masks are binary: 43 pieces; touching nuclei are one. Instance maps would keep them apart."
    )
    assert is_mask_note(
        "Classes of nuclei in the masks (counted here only, since a store has no place for them): Tumor 7."
    )
    assert not is_mask_note("CoNIC: 1 of the 4981 released images.")
    assert not is_mask_note("Masks without an image, not used: 1 (spare.png).")
