"""The command line accepts every command in the documentation."""

from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from nucseg_pipeline.cli import app
from tests.docs.pages import PAGES, Command, commands

COMMANDS = [command for page in PAGES for command in commands(page)]

UsageError = typer.BadParameter.__bases__[0]


def parse(words: tuple[str, ...]) -> Any:
    """Parse a command without running it; raises UsageError if it is not accepted."""
    command: Any = typer.main.get_command(app)
    context = command.make_context(words[0], list(words[1:]))
    while isinstance(command, TyperGroup):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)
    return context


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 60
    assert {command.words[1] for command in COMMANDS} >= {"embed", "train", "report", "fetch", "ablate"}


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_documented_command_is_accepted(command: Command) -> None:
    words = tuple(word.replace("$fold", "0") for word in command.words if word != "...")
    if not set(words) & {"--help", "--install-completion"}:
        parse(words)


@pytest.mark.parametrize("words", ["nucseg embd", "nucseg embed --datset x", "nucseg train --epochs many"])
def test_an_invalid_command_is_noticed(words: str) -> None:
    with pytest.raises(UsageError):
        parse(tuple(words.split()))
