"""File names with spaces, markup, control characters or invalid UTF-8, and in two Unicode spellings."""

import os
import unicodedata
from typing import Any

from nucseg_cache import Store
from tests.torture.inputs.drawing import nuclei, picture

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
    "reserved by Windows": "CON",
    "longest possible": "x" * 251,
    "hash": "#1",
    "tilde": "~",
    "colon": "C:x",
    "like a temporary file": "odd.part",
    "like a lost row": "(lost row 1)",
}
"""Accepted names; the id of the image is the name in composed Unicode."""

REFUSED: dict[str, bytes] = {
    "line break": b"a\nb",
    "carriage return": b"a\rb",
    "tab": b"a\tb",
    "escape sequence": b"a\x1b[31mred",
    "bell": b"a\x07",
    "delete": b"a\x7f",
    "C1 control": "a\x9bb".encode(),
    "invalid UTF-8": b"a\xff\xfe",
    "latin 1": "Präparat".encode("latin-1"),
    "half a character": "切".encode()[:2],
    "encoded surrogate": b"a\xed\xa0\x80",
}


def test_unusual_names(dataset: Any, some_of: Any) -> None:
    for case, name in some_of(NAMES, 4).items():
        data, id_ = dataset(), unicodedata.normalize("NFC", name)
        data.add(name, picture(7))
        check = lambda _, d=data, id_=id_: d.pixels(id_, picture(7)) or d.ids(id_, nuclei())  # noqa: E731
        data.try_embed("name: unusual file name", case, naming=[name], check=check)


def test_refused_names(dataset: Any, some_of: Any) -> None:
    for case, raw in some_of(REFUSED, 2).items():
        data, name = dataset(), os.fsdecode(raw)
        add(data, name)
        ended = data.try_embed("name: control characters or invalid UTF-8", case, naming=[repr(name)[1:-1]])
        assert ended.err.isascii() or "�" not in ended.err
        assert not set(ended.err) & set("\x1b\x07\r\t\x7f\x9b")


def add(data: Any, name: str, mask_name: str | None = None, seed: int = 7) -> None:
    """Add an image and its mask under names that Pillow would refuse or change."""
    data.add("temporary", picture(seed))
    data.image("temporary.png").rename(data.image(f"{name}.png"))
    data.mask("temporary.png").rename(data.mask(f"{mask_name or name}.png"))


def test_one_name_in_two_spellings(dataset: Any) -> None:
    fault = "name: two Unicode spellings"
    composed, decomposed = (unicodedata.normalize(form, "Größe") for form in ("NFC", "NFD"))
    for names in ((composed, decomposed), (decomposed, composed)):
        data = dataset()
        add(data, *names)
        check = lambda _, d=data: d.pixels(composed, picture(7)) or d.ids(composed, nuclei())  # noqa: E731
        data.try_embed(fault, "image and mask differ", naming=["Größe"], check=check)
    for kind in ("images", "masks"):
        data = dataset()
        add(data, composed)
        (data.folder / kind / f"{decomposed}.png").write_bytes((data.folder / kind / f"{composed}.png").read_bytes())
        data.try_embed(fault, f"two files in {kind}", naming=["Größe"])
    data = dataset()
    for kind, group in (("images", composed), ("masks", decomposed)):
        files = list((data.folder / kind).iterdir())
        (data.folder / kind / group).mkdir()
        for file in files:
            file.rename(file.parent / group / file.name)
    in_group = lambda *_: data.ids(f"{composed}/sound 0", nuclei())  # noqa: E731
    data.try_embed(fault, "sub-folders", check=in_group, always=lambda: "")


def pixels_problem(data: Any, seeds: dict[str, int]) -> str:
    return next(filter(None, (data.pixels(name, picture(seed)) for name, seed in seeds.items())), "")


def test_nearly_equal_names(dataset: Any) -> None:
    fault = "name: nearly equal names"
    data, seeds = dataset(), {"A": 3, "a": 4, "a.b": 5, "a b": 6}
    for name, seed in seeds.items():
        data.add(name, picture(seed))
    data.try_embed(fault, "A and a", check=lambda _: pixels_problem(data, seeds))

    data, seeds = dataset(), {"one/same": 3, "two/same": 4}
    for kind in ("images", "masks"):
        for file in (data.folder / kind).iterdir():
            file.unlink()
        for group in ("one", "two"):
            (data.folder / kind / group).mkdir()
    for name, seed in seeds.items():
        data.add(name, picture(seed))
    data.try_embed(fault, "one name in two sub-folders", check=lambda _: pixels_problem(data, seeds), always=lambda: "")

    data = dataset()
    data.add("odd", picture(7))
    for suffix in ("PNG", "tif"):
        data.image(f"odd.{suffix}").write_bytes(data.image("odd.png").read_bytes())
    data.try_embed(fault, "one name, three suffixes")


def test_hidden_files(dataset: Any) -> None:
    data = dataset()
    for kind in ("images", "masks"):
        folder = data.folder / kind
        for name in (".DS_Store", "._sound 0.png", ".hidden.png", "Thumbs.db", "desktop.ini", "Icon\r"):
            (folder / name).write_bytes(b"\0\x05\x16\x07")
        (folder / os.fsdecode(b"n\xf6tes.txt")).write_text("notes")
        (folder / ".png").write_bytes(b"")
    check = lambda _: "" if data.store().n_rows == 2 else "another file was read"  # noqa: E731
    data.try_embed("data set: hidden files of operating systems", "hidden files, thumbnails, notes", check=check)


FOLDERS = {
    "brackets": "[red]x[red]",
    "spaces": "a b  c",
    "line break": "a\nb",
    "invalid UTF-8": os.fsdecode(b"a\xff"),
    "percent": "100%s",
    "escape sequence": "a\x1b[2Jb",
    "Chinese": "组织",
    "leading dash": "-x",
    "hash": "a#b?c",
}


def test_unusual_folder_names(trial: Any, dataset: Any, some_of: Any) -> None:
    """The data set and the cache are in a folder of that name."""
    fault = "name: unusual folder name"
    for case, name in some_of(FOLDERS, 1).items():
        data = dataset()
        folder = data.folder.parent / name
        folder.mkdir()
        data.folder.rename(folder / "slides")
        store = folder / "cache" / "mine.zarr"
        embed = ["embed", "--dataset", "mine", "--cache", folder / "cache", "--encoder", "none"]
        check = lambda _, store=store: "" if Store.open(store).n_rows == 2 else "rows are missing"  # noqa: E731
        ended = trial(
            fault, case, [*embed, "--source", folder / "slides"], naming=[repr(name)[1:-1], name], check=check
        )
        assert not set(ended.out + ended.err) & set("\x1b\x07\r\x7f")
        if ended.status == 0:
            trial(fault, f"{case}, info", ["cache", "info", store], check=lambda _: "")
            again = lambda e: "" if "0 new" in e.out else "the source was not found again"  # noqa: E731
            trial(fault, f"{case}, again", embed, check=again)
