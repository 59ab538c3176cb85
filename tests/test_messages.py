"""docs/messages.md holds error messages that are still given, and each of them is provoked by a test."""

import re
from pathlib import Path

import pytest

from nucseg.errors import DataError
from tests.messages import REPOSITORY, UNPROVOKED, Messages, Site, chosen, page, plain, sites

LIST = REPOSITORY / "docs" / "messages.md"

ANEW = "Run `make messages`, which writes the list anew, and read what has changed in it."


def listed() -> list[tuple[str, str]]:
    """Module and title of each entry of the list."""
    found, module = [], ""
    for line in LIST.read_text().splitlines():
        if heading := re.fullmatch(r"## (\S+)", line):
            module = heading[1]
        elif title := re.fullmatch(r"\*\*(.+)\*\*", line):
            found.append((module, title[1]))
    return found


def test_what_the_list_names_is_still_there() -> None:
    assert set(listed()) <= {(site.module, site.title) for site in sites().values()}, ANEW


def test_every_error_is_provoked_by_a_test() -> None:
    entries = LIST.read_text().split("\n**")
    assert [entry.partition("**")[0] for entry in entries if UNPROVOKED in entry] == [], ANEW


def test_an_error_is_noted_with_the_place_that_made_it(tmp_path: Path) -> None:
    file = tmp_path / "raises.py"
    file.write_text("def refuse(error):\n    raise error(\n        'it is\\ntoo small'\n    )\n")
    messages = Messages(tmp_path / "list.md")
    messages.sites = {(str(file), line): Site("raises", 2, "refuse", 1, "DataError") for line in (2, 3, 4)}
    names: dict[str, object] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)

    class Noted(DataError):
        def __init__(self, message: str) -> None:
            super().__init__(message)
            messages.note(message)

    with pytest.raises(Noted):
        names["refuse"](Noted)  # type: ignore[operator]

    (site,) = messages.said
    assert "**refuse 1: DataError**\n\n    it is\n    too small\n" in page(messages.said, {site})


def test_what_a_run_of_the_tests_is_called_is_left_out_of_messages() -> None:
    assert plain("/tmp/pytest-of-me/pytest-12/popen-gw1/test_x0/cache/a.zarr: bad") == "/work/cache/a.zarr: bad"
    assert plain(f"digest {'ab' * 16}.") == "digest abababab...."


def test_messages_that_differ_in_numbers_and_names_alone_are_one() -> None:
    assert chosen({"3 of 'b' in /x/y", "12 of 'a' in /z", "none of 'a'"}) == ["none of 'a'", "12 of 'a' in /z"]
