"""Recipes that try to exhaust memory or time, and any others."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucseg.errors import ConfigError
from nucseg.toml import MAX_BYTES, parse_toml, read_toml


def test_a_byte_order_mark_is_accepted() -> None:
    assert parse_toml(b"\xef\xbb\xbf[train]\nepochs = 1\n", "The recipe") == {"train": {"epochs": 1}}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "bomb",
    [
        b".".join([b"a"] * 200_000) + b" = 1",
        b"[" + b" . ".join([b'"a"'] * 200_000) + b"]",
        b"x = " + b"[" * 500_000,
        b"x = " + b"{a=" * 200_000,
        b"x = " + b"9" * 500_000,
        b"a" * 1_000_000,
        b"\xff\xfe",
    ],
)
def test_a_bomb_is_refused_quickly(bomb: bytes) -> None:
    with pytest.raises(ConfigError, match=r"The recipe a\.toml"):
        parse_toml(bomb, "The recipe a.toml")


@pytest.mark.timeout(20)
def test_an_endless_file_is_not_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    (tmp_path / "large.toml").write_bytes(b" " * (MAX_BYTES + 1))

    for name in ("endless", "large"):
        with pytest.raises(ConfigError, match=f"{name}.toml is larger than 1 MiB"):
            read_toml(tmp_path / f"{name}.toml")
    with pytest.raises(ConfigError, match="home folder"):
        read_toml("~nobody-of-that-name/a.toml")


@given(st.binary(max_size=200) | st.text("[]{}=.\"'#,\n\\ aex0_-:", max_size=60).map(str.encode))
def test_any_bytes_are_parsed_as_by_the_standard_library_or_refused(content: bytes) -> None:
    try:
        expected = tomllib.loads(content.decode("utf-8-sig"))
    except ValueError:
        with pytest.raises(ConfigError, match="The recipe x"):
            parse_toml(content, "The recipe x")
    else:
        assert repr(parse_toml(content, "The recipe x")) == repr(expected)
