"""What reaches a terminal."""

import pytest

from nucseg_pipeline.cli.console import err, out, printable, table


def test_nothing_that_is_printed_controls_the_terminal() -> None:
    hostile = "a\x1b[2J\x07\r\x9b\x7f\u202eb\udcffc"

    escaped = printable(hostile)

    assert escaped == r"a\x1b[2J\x07\r\x9b\x7f\u202eb\udcffc"
    assert printable("Größe [red]\n\t切") == "Größe [red]\n\t切"


@pytest.mark.parametrize("stream", ["out", "err"])
def test_names_of_files_are_printed_whatever_is_in_them(stream: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = {"out": out, "err": err}[stream]

    console.print("run: /tmp/\x1b[31m[red]\udcff")
    console.print(table("t\x1b", ("c\x1b",), [["r\x1b"]]))

    printed = getattr(capsys.readouterr(), stream)
    assert r"run: /tmp/\x1b[31m[red]\udcff" in printed
    assert "\x1b" not in printed
