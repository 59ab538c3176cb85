"""Every command that the documents show is one that the command line takes."""

from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from nucseg_pipeline.cli import app
from tests.docs.pages import PAGES, Shown, commands

SHOWN = [command for page in PAGES for command in commands(page)]


UsageError = typer.BadParameter.__bases__[0]


def parsed(words: tuple[str, ...]) -> Any:
    """What the command line makes of words, without doing anything; UsageError where it does not take them."""
    command: Any = typer.main.get_command(app)
    context = command.make_context(words[0], list(words[1:]))
    while isinstance(command, TyperGroup):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)
    return context


def test_the_documents_show_commands() -> None:
    assert len(SHOWN) > 60
    assert {words[1] for words in (one.words for one in SHOWN)} >= {"embed", "train", "report", "fetch", "ablate"}


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_a_command_in_the_documents_is_taken(shown: Shown) -> None:
    words = tuple(word.replace("$fold", "0") for word in shown.words if word != "...")
    if set(words) & {"--help", "--install-completion"}:
        return
    parsed(words)


@pytest.mark.parametrize("words", ["nucseg embd", "nucseg embed --datset x", "nucseg train --epochs many"])
def test_what_the_command_line_does_not_take_is_noticed(words: str) -> None:
    with pytest.raises(UsageError):
        parsed(tuple(words.split()))
