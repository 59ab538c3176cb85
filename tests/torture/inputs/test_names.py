"""File names as people give them: with spaces, marks, brackets, line breaks, in two spellings, or no text at all."""

import os
import unicodedata
from pathlib import Path
from typing import Any

from PIL import Image

from nucseg_cache import Store

LONG = "x" * 251

NAMES: dict[str, str] = {
    "spaces": "a name  with spaces",
    "trailing space": "trailing ",
    "leading space": " leading",
    "umlauts": "Präparat Größe",
    "umlauts, decomposed": unicodedata.normalize("NFD", "Präparat Größe"),
    "Chinese": "组织切片",
    "Arabic": "شريحة",
    "emoji of several code points": "👩🏽‍🔬",
    "combining marks": "Z̸͑a̵͝l̴g̷o",
    "right-to-left override": "a\u202egnp.exe",
    "zero-width space": "a\u200bb",
    "brackets like markup": "[red]x[red]",
    "an open bracket": "[",
    "a link like markup": "[link=file:etc]x[link]",
    "percent": "100%s %d %(id)s",
    "braces": "{0} {id} ${HOME}",
    "quotes": 'it\'s "quoted" `so`',
    "backslash": "a\\b",
    "dollar and backticks": "$(touch pwned) `touch pwned`",
    "semicolon and pipe": "a; touch pwned | b && c",
    "star and question mark": "a*b?",
    "leading dash": "-rf",
    "leading dash like an option": "--cache=elsewhere",
    "a formula": "=1+1",
    "HTML": "<script>alert(1)<script>",
    "ampersand": "a&amp;b",
    "comma and semicolon": "a,b;c",
    "only dots inside": "a..b",
    "several suffixes": "a.tar.gz.tif",
    "a number": "007",
    "true": "true",
    "NaN": "nan",
    "a name of Windows": "CON",
    "as long as can be": LONG,
    "hash": "#1",
    "tilde": "~",
    "colon": "C:x",
    "like a temporary file": "odd.part",
    "like a lost row": "(lost row 1)",
}
"""Names with which an image is taken in, under that name in composed letters."""

REFUSED: dict[str, bytes] = {
    "line break": b"a\nb",
    "carriage return": b"a\rb",
    "tab": b"a\tb",
    "escape sequence": b"a\x1b[31mred",
    "bell": b"a\x07",
    "delete": b"a\x7f",
    "C1 control": "a\x9bb".encode(),
    "no UTF-8": b"a\xff\xfe",
    "latin 1": "Präparat".encode("latin-1"),
    "half a character": "切".encode()[:2],
    "encoded surrogate": b"a\xed\xa0\x80",
}


def test_names(trial: Any, slides: Any, some_of: Any, draw: Any) -> None:
    for case, name in some_of(NAMES, 5).items():
        data = slides()
        Image.fromarray(draw.picture(7)).save(data.image(f"{name}.png"))
        Image.fromarray(draw.nuclei()).save(data.mask(f"{name}.png"))
        id_ = unicodedata.normalize("NFC", name)
        trial(
            "odd file name",
            case,
            data.embed,
            naming=[name],
            untouched=data.folder,
            kept=data.sound_kept,
            right=lambda _, d=data, id_=id_: d.pixels(id_, draw.picture(7)) or d.ids(id_, draw.nuclei()),
        )


def test_names_that_no_id_can_be_made_of(trial: Any, slides: Any, some_of: Any, draw: Any) -> None:
    for case, raw in some_of(REFUSED, 2).items():
        data = slides()
        name = os.fsdecode(raw)
        put(data.folder / "images", name, draw.picture(7))
        put(data.folder / "masks", name, draw.nuclei())
        ended = trial(
            "file name that is no text",
            case,
            data.embed,
            naming=[repr(name)[1:-1]],
            untouched=data.folder,
            kept=data.sound_kept,
        )
        assert ended.err.isascii() or "�" not in ended.err
        assert not set(ended.err) & set("\x1b\x07\r\t\x7f\x9b")


def put(folder: Path, name: str, values: Any) -> None:
    Image.fromarray(values).save(folder / "temporary.png")
    (folder / "temporary.png").rename(folder / f"{name}.png")


def test_one_name_in_two_spellings(trial: Any, slides: Any, draw: Any) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Größe") for form in ("NFC", "NFD"))
    for image, mask in ((composed, decomposed), (decomposed, composed)):
        data = slides()
        Image.fromarray(draw.picture(7)).save(data.image(f"{image}.png"))
        Image.fromarray(draw.nuclei()).save(data.mask(f"{mask}.png"))
        trial(
            "one name spelt in two ways",
            "image and mask differ",
            data.embed,
            naming=["Größe"],
            right=lambda _, d=data: d.pixels(composed, draw.picture(7)) or d.ids(composed, draw.nuclei()),
        )
    for kind in ("images", "masks"):
        data = slides()
        for name in (composed, decomposed):
            Image.fromarray(draw.picture(7)).save(data.image(f"{composed}.png"))
            Image.fromarray(draw.nuclei()).save(data.mask(f"{composed}.png"))
            (data.folder / kind / f"{composed}.png").rename(data.folder / kind / f"{name}.tif.png")
            (data.folder / kind / f"{name}.tif.png").rename(data.folder / kind / f"{name}.png")
            put(data.folder / kind, composed, draw.nuclei() if kind == "masks" else draw.picture(7))
        trial("one name spelt in two ways", f"two files in {kind}", data.embed, naming=["Größe"], kept=data.sound_kept)
    data = slides()
    for kind, group in (("images", composed), ("masks", decomposed)):
        folder = data.folder / kind
        (data.folder / "new" / group).mkdir(parents=True)
        for file in folder.iterdir():
            file.rename(data.folder / "new" / group / file.name)
        folder.rmdir()
        (data.folder / "new").rename(folder)
    trial(
        "one name spelt in two ways",
        "sub-folders",
        data.embed,
        right=lambda _: data.ids(f"{composed}/sound 0", draw.nuclei()),
    )


def test_twins(trial: Any, slides: Any, draw: Any) -> None:
    data = slides()
    for seed, name in enumerate(("A", "a", "a.b", "a b")):
        Image.fromarray(draw.picture(seed + 3)).save(data.image(f"{name}.png"))
        Image.fromarray(draw.nuclei()).save(data.mask(f"{name}.png"))
    trial(
        "names that nearly are the same",
        "A and a",
        data.embed,
        kept=data.sound_kept,
        right=lambda _: next(
            filter(
                None, (data.pixels(name, draw.picture(seed + 3)) for seed, name in enumerate(("A", "a", "a.b", "a b")))
            ),
            "",
        ),
    )

    data = slides()
    for kind in ("images", "masks"):
        for group in ("one", "two"):
            (data.folder / kind / group).mkdir()
        for file in list((data.folder / kind).glob("*.png")):
            file.unlink()
    for seed, group in enumerate(("one", "two")):
        Image.fromarray(draw.picture(seed + 3)).save(data.image(f"{group}/same.png"))
        Image.fromarray(draw.nuclei()).save(data.mask(f"{group}/same.png"))
    trial(
        "names that nearly are the same",
        "one name in two sub-folders",
        data.embed,
        right=lambda _: next(
            filter(None, (data.pixels(f"{g}/same", draw.picture(s + 3)) for s, g in enumerate(("one", "two")))), ""
        ),
    )

    data = slides()
    for suffix in ("png", "PNG", "tif"):
        Image.fromarray(draw.picture(7)).save(data.image(f"odd.{suffix}"))
    Image.fromarray(draw.nuclei()).save(data.mask("odd.png"))
    trial("names that nearly are the same", "one name, three suffixes", data.embed, naming=["odd."])


def test_files_that_systems_leave_behind(trial: Any, slides: Any, draw: Any) -> None:
    data = slides()
    for kind in ("images", "masks"):
        folder = data.folder / kind
        for name in (".DS_Store", "._sound 0.png", ".hidden.png", "Thumbs.db", "desktop.ini", "Icon\r"):
            (folder / name).write_bytes(b"\0\x05\x16\x07")
        (folder / os.fsdecode(b"n\xf6tes.txt")).write_text("notes")
        (folder / ".png").write_bytes(b"")
    trial(
        "files that systems leave behind",
        "hidden files, thumbnails, notes",
        data.embed,
        kept=data.sound_kept,
        right=lambda _: "" if data.store().n_rows == 2 else "something else was taken in",
    )


PLACES = {
    "brackets": "[red]x[red]",
    "spaces": "a b  c",
    "line break": "a\nb",
    "no UTF-8": os.fsdecode(b"a\xff"),
    "percent": "100%s",
    "escape sequence": "a\x1b[2Jb",
    "Chinese": "组织",
    "leading dash": "-x",
    "hash": "a#b?c",
}


def test_folders_of_odd_names(trial: Any, slides: Any, some_of: Any, draw: Any) -> None:
    """The data set, the cache, or both lie in a folder of that name."""
    for case, name in some_of(PLACES, 1).items():
        data = slides()
        place = data.folder.parent / name
        place.mkdir()
        data.folder.rename(place / "slides")
        named = ["--dataset", "mine", "--source", place / "slides", "--cache", place / "cache"]
        store = place / "cache" / "mine.zarr"
        ended = trial(
            "folder of an odd name",
            case,
            ["embed", *named, "--encoder", "none"],
            naming=[repr(name)[1:-1], name],
            right=lambda _, store=store: "" if Store.open(store).n_rows == 2 else "not all is there",
        )
        assert not set(ended.out + ended.err) & set("\x1b\x07\r\x7f")
        if ended.status == 0:
            trial("folder of an odd name", f"{case}, info", ["cache", "info", store], right=lambda _: "")
            trial(
                "folder of an odd name",
                f"{case}, again",
                ["embed", "--dataset", "mine", "--cache", place / "cache", "--encoder", "none"],
                right=lambda e: "" if "0 new" in e.out else "not where it was",
            )
