"""Every error message that the product can give, as the tests meet them, written into one list.

A message belongs to the place in the source that makes it: the call of an error class. `sites` finds these places in
the source, the plugin `Messages` what is said there while the tests run, and `page` puts both together.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from nucseg.errors import NucsegError
from nucseg_cache import CacheError

REPOSITORY = Path(__file__).resolve().parents[1]

PACKAGES = {"nucseg": "nucseg", "cache/nucseg_cache": "nucseg_cache", "pipeline/nucseg_pipeline": "nucseg_pipeline"}

BASES = (NucsegError, CacheError, typer.BadParameter)

SHOWN = 3
"""Messages of one place, where what it says depends on what was found."""

UNPROVOKED = "No test provokes it."

INTRODUCTION = """\
# Error messages

Every error message that nucseg can give, as the tests provoke them, by the place in the source that gives it. Paths and
names are those of the tests. Each is meant to say what was found, what was expected, and the way out. `make messages`
writes this list anew; `pytest SOME_TESTS --messages docs/pages/messages.md` adds what these provoke.
"""


@dataclass(frozen=True, order=True)
class Site:
    """One place in the source that makes an error."""

    module: str
    line: int
    function: str
    number: int
    """Among those of the function, from 1."""
    error: str

    @property
    def title(self) -> str:
        """As it stands in the list."""
        return f"{self.function} {self.number}: {self.error}"


def sites() -> dict[tuple[str, int], Site]:
    """Each place in the packages that makes an error, by the file's path and each line of it."""
    files = [(package, root, file) for package, root in _roots() for file in sorted(root.rglob("*.py"))]
    trees = {file: ast.parse(file.read_text()) for _, _, file in files}
    names = _errors(trees.values())
    found: dict[tuple[str, int], Site] = {}
    for package, root, file in files:
        module = ".".join([package, *file.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
        found |= {(str(file), line): site for site, lines in _in_file(trees[file], module, names) for line in lines}
    return found


def _roots() -> list[tuple[str, Path]]:
    return [(package, REPOSITORY / folder) for folder, package in PACKAGES.items()]


def _errors(trees: Iterable[ast.Module]) -> set[str]:
    """The names of all classes that are errors for the user, from what they are derived from in the source."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names = {base.__name__ for base in BASES}
    while more := {one.name for one in classes if names & {getattr(base, "id", "") for base in one.bases}} - names:
        names |= more
    return names


def _in_file(tree: ast.Module, module: str, names: set[str]) -> Iterator[tuple[Site, range]]:
    counts: dict[str, int] = {}

    def visit(inside_of: ast.AST, function: str) -> Iterator[tuple[Site, range]]:
        for node in ast.iter_child_nodes(inside_of):
            inside = f"{function}.{node.name}".lstrip(".") if isinstance(node, _NAMED) else function
            if isinstance(node, ast.Call) and (error := _called(node)) in names:
                counts[inside] = counts.get(inside, 0) + 1
                site = Site(module, node.lineno, inside, counts[inside], error)
                yield site, range(node.lineno, (node.end_lineno or node.lineno) + 1)
            yield from visit(node, inside)

    return visit(tree, "")


_NAMED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _called(node: ast.Call) -> str:
    return str(getattr(node.func, "id", getattr(node.func, "attr", "")))


class Messages:
    """While the tests run, note what each error says; at their end, bring the list up to date."""

    def __init__(self, file: Path) -> None:
        self.file, self.sites = file, sites()
        self.said: dict[Site, set[str]] = {}
        """What was said in this run. Of places that it does not come by, what stands in the list stays there."""

    def listen(self) -> None:
        """Let every error tell us where it was made."""
        for base in BASES:
            made = base.__init__

            def noted(error: Any, *args: Any, made: Any = made, **kwargs: Any) -> None:
                made(error, *args, **kwargs)
                self.note(str(error) or str(getattr(error, "message", "")), error)

            base.__init__ = noted  # type: ignore[method-assign]

    def note(self, message: str, error: object = None) -> None:
        """Remember a message with the nearest place on the stack that makes errors, outside of the error itself."""
        frame = sys._getframe(2)
        while frame is not None and error is not None and frame.f_locals.get("self") is error:
            frame = frame.f_back
        if frame is not None and (site := self.sites.get((frame.f_code.co_filename, frame.f_lineno))):
            self.said.setdefault(site, set()).add(plain(message))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand over what was noted to the process that started this one, or write it."""
        output = getattr(session.config, "workeroutput", None)
        mine = [(*vars(site).values(), sorted(said)) for site, said in self.said.items()]
        if output is not None:
            output["messages"] = mine
        else:
            known = set(self.sites.values())
            before = listed(self.file.read_text()) if self.file.exists() else {}
            kept = {site: set(before[site.module, site.title]) for site in known if (site.module, site.title) in before}
            self.file.write_text(page(kept | self.said, known))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a process that ran tests has noted."""
        for *fields, said in getattr(node, "workeroutput", {}).get("messages", ()):
            self.said.setdefault(Site(*fields), set()).update(said)


def plain(message: str) -> str:
    """The message without what differs from one run of the tests to the next."""
    message = re.sub(r"\n\s*\n", "\n", message).replace(str(REPOSITORY), "/nucseg")
    message = re.sub(
        r"/\S*?/pytest-of-[^/]+/pytest-\d+/(popen-gw\d+/)?[^/\s]*?\d+(?=[/\s.,:;)'\"]|$)", "/work", message
    )
    return re.sub(r"\b[0-9a-f]{32,}\b", lambda digest: digest[0][:8] + "...", message)


def page(said: dict[Site, set[str]], known: set[Site]) -> str:
    """The list, in Markdown, by package and module."""
    lines = [INTRODUCTION]
    module = ""
    for site in sorted(known):
        if site.module != module:
            module = site.module
            lines.append(f"## {module}\n")
        examples = chosen(said.get(site, set()))
        lines.append(f"**{site.title}**\n")
        lines += ["\n".join(f"    {line}".rstrip() for line in one.splitlines()) + "\n" for one in examples]
        if not examples:
            lines.append(f"{UNPROVOKED}\n")
    return "\n".join(lines)


def listed(text: str) -> dict[tuple[str, str], list[str]]:
    """What stands in a list: module and title of each entry, and its messages."""
    found: dict[tuple[str, str], list[str]] = {}
    for chapter in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        module, _, entries = chapter.partition("\n")
        for title, body in re.findall(r"^\*\*([^\n]+)\*\*\n(.*?)(?=^\*\*|\Z)", entries, re.MULTILINE | re.DOTALL):
            examples = re.split(r"\n\n(?=    )", body.strip("\n"))
            found[module, title] = [re.sub(r"^    ", "", one, flags=re.MULTILINE) for one in examples if one[:1] == " "]
    return found


def chosen(messages: set[str]) -> list[str]:
    """The shortest of those that differ in more than in numbers, names in quotation marks, and paths."""
    kinds: dict[str, str] = {}
    for message in sorted(messages, key=lambda one: (len(one), one)):
        kinds.setdefault(re.sub(r"'[^']*'|/\S+|0x[0-9a-f]+|[\d.]+", "_", message), message)
    return list(kinds.values())[:SHOWN]
