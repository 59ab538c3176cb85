"""docs/pages/messages.md holds the message of every place that makes an error, as a test provokes it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from nucseg.errors import DataError
from tests.messages import REPOSITORY, Messages, Site, chosen, listed, page, plain, sites

LIST = REPOSITORY / "docs" / "pages" / "messages.md"

ANEW = "Provoke it in a test, run that with --messages docs/pages/messages.md, and read what it says."


def test_every_place_that_makes_an_error_is_listed_and_no_other() -> None:
    assert set(listed(LIST.read_text())) == {(site.module, site.title) for site in sites().values()}, ANEW


def test_every_error_is_provoked_by_a_test() -> None:
    assert [entry for entry, messages in listed(LIST.read_text()).items() if not messages] == [], ANEW


def test_a_list_is_read_as_it_was_written() -> None:
    one, other = Site("a.b", 1, "f", 1, "DataError"), Site("a.b", 9, "C.g", 2, "ConfigError")
    said = {one: {"it is\n  too small", "and so\non"}}

    assert listed(page(said, {one, other})) == {
        ("a.b", one.title): ["and so\non", "it is\n  too small"],
        ("a.b", other.title): [],
    }


def test_a_run_of_some_tests_keeps_what_others_have_provoked(tmp_path: Path) -> None:
    one, other, gone = (Site("a", line, "f", line, "DataError") for line in (1, 2, 3))
    file = tmp_path / "list.md"
    file.write_text(page({one: {"one, before"}, other: {"other, before"}, gone: {"gone"}}, {one, other, gone}))
    messages = Messages(file)
    messages.sites = {("a.py", site.line): site for site in (one, other)}
    messages.said = {one: {"one, now"}}

    messages.pytest_sessionfinish(SimpleNamespace(config=None))  # type: ignore[arg-type]

    assert listed(file.read_text()) == {("a", one.title): ["one, now"], ("a", other.title): ["other, before"]}


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
            messages.note(message, self)

    with pytest.raises(Noted):
        names["refuse"](Noted)  # type: ignore[operator]

    (site,) = messages.said
    assert "**refuse 1: DataError**\n\n    it is\n    too small\n" in page(messages.said, {site})


def test_what_a_run_of_the_tests_is_called_is_left_out_of_messages() -> None:
    assert plain("/tmp/pytest-of-me/pytest-12/popen-gw1/test_x0/cache/a.zarr: bad") == "/work/cache/a.zarr: bad"
    assert plain(f"digest {'ab' * 16}.") == "digest abababab...."


def test_messages_that_differ_in_numbers_and_names_alone_are_one() -> None:
    assert chosen({"3 of 'b' in /x/y", "12 of 'a' in /z", "none of 'a'"}) == ["none of 'a'", "12 of 'a' in /z"]
