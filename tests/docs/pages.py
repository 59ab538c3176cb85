"""The pages of the documentation, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

PAGES = sorted(
    path
    for path in (REPOSITORY / "README.md", *REPOSITORY.glob("docs/pages/*.md"), *REPOSITORY.glob("*/README.md"))
    if not path.is_symlink()
)

BLOCK = re.compile(
    r"^```(?P<language>\w*)\n(?P<fenced>.*?)^```|(?P<indented>(?:^    \S[^\n]*\n(?:^\s*\n)*)+)", re.M | re.S
)
"""A fenced or an indented block. Blocks of all languages match, so that no end of a block is taken for a start."""

TABLE = re.compile(r" *nucseg {2}")
"""A line of a table drawn with spaces, not a command."""


@dataclass(frozen=True)
class Command:
    """A command on a page."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def commands(page: Path) -> Iterator[Command]:
    """Every nucseg command in the blocks of a page, without comments; commands joined by && are separated."""
    for block in BLOCK.finditer(page.read_text("utf-8")):
        if block["language"] not in (None, "", "bash", "console"):
            continue
        lines = (block["fenced"] or block["indented"] or "").replace("\\\n", " ").splitlines()
        for command in (part for line in lines if not TABLE.match(line) for part in _split(line)):
            if command[:1] == ["nucseg"]:
                yield Command(str(page.relative_to(REPOSITORY)), tuple(command))


def _split(line: str) -> Iterator[list[str]]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a diagram, not a command
        return
    while "&&" in words:
        yield words[: words.index("&&")]
        words = words[words.index("&&") + 1 :]
    yield words
