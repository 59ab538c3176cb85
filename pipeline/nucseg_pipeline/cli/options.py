"""Options made from the dataclass that configures a stage: name, type, default and help are written once, there."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from inspect import Parameter, Signature, cleandoc
from itertools import pairwise
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from nucseg_pipeline.cli import completion

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Command = Callable[..., None]

_COMPLETIONS = {
    "dataset": completion.datasets,
    "datasets": completion.datasets,
}

_OFF = "no_"
"""Prefix of the hidden option that switches off what a recipe switches on."""

_RECIPE = Annotated[
    str | None,
    typer.Option(
        autocompletion=completion.recipes,
        help="Name or file of a recipe. Options override it; --no-NAME switches off what it switches on.",
    ),
]


def options_from(
    config: type[DataclassInstance],
    panels: Mapping[str, str],
    *,
    arguments: Mapping[str, Any] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Callable[[Command], Command]:
    """Make a command's parameters from the fields of its configuration.

    The command is called with the configuration: options that were given override the recipe, the recipe overrides the
    defaults. A command with a second parameter `recipe` gets the option --recipe, and its value.

    Args:
        config: the dataclass.
        panels: heading in the help -> names of the fields under it, separated by spaces, in the order of the help.
        arguments: field that is given by position -> its typer.Argument.
        flags: field -> its option, where that is not the field's name. A flag in it has no --no-FLAG.
    """

    def made_from(command: Command) -> Command:
        has_recipe = "recipe" in inspect.signature(command).parameters

        def run(ctx: typer.Context, **values: Any) -> None:
            from nucseg_pipeline.config.recipe import load_recipe, resolve

            recipe = values.pop("recipe") if has_recipe else None
            stated = load_recipe(recipe, command.__name__) if recipe else {}
            resolved = resolve(config, stated, _given(ctx, values))
            command(*(resolved, recipe) if has_recipe else (resolved,))

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        parameters = _parameters(config, panels, arguments or {}, flags or {}, has_recipe=has_recipe)
        run.__signature__ = Signature(list(parameters))  # type: ignore[attr-defined]
        return run

    return made_from


def field_docs(config: type[DataclassInstance]) -> dict[str, str]:
    """Field -> the docstring under it, on one line."""
    module = ast.parse(inspect.getsource(sys.modules[config.__module__]))
    (body,) = (node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == config.__name__)
    found = {}
    for field, text in pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                found[name] = " ".join(cleandoc(doc).split())
    return found


def _given(ctx: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values from the command line, without defaults: those must not override a recipe."""
    given = {}
    for name, value in values.items():
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            given[name.removeprefix(_OFF)] = False if name.startswith(_OFF) else value
    return given


def _parameters(
    config: type[DataclassInstance],
    panels: Mapping[str, str],
    arguments: Mapping[str, Any],
    flags: Mapping[str, str],
    *,
    has_recipe: bool,
) -> Iterator[Parameter]:
    """The parameters of a command, as typer reads them from a signature."""
    known, docs, types = {field.name: field for field in fields(config)}, field_docs(config), get_type_hints(config)
    yield _parameter("ctx", typer.Context)
    for name, argument in arguments.items():
        argument.help = docs[name]
        yield _parameter(name, Annotated[_accepted(types[name]), argument])
    if has_recipe:
        yield _parameter("recipe", _RECIPE, None)
    for panel, names in panels.items():
        for name in names.split():
            completes = _COMPLETIONS.get(name) or completion.names(config, name)
            yield _option(known[name], types[name], docs[name], panel, flags.get(name), completes, has_recipe)
            if types[name] is bool and name not in flags:
                yield _parameter(_OFF + name, Annotated[bool, typer.Option(_flag(_OFF + name), hidden=True)], False)


def _option(
    field: Field[Any],
    kind: Any,
    doc: str,
    panel: str,
    flag: str | None,
    completes: completion.Completion | None,
    has_recipe: bool,
) -> Parameter:
    text, _, described = doc.partition(" Default: ")
    if get_origin(kind) is tuple:
        text += " Can be given several times."
    option = typer.Option(
        flag or _flag(field.name),
        help=text,
        metavar="" if kind is bool else None,  # a flag takes no value
        rich_help_panel=panel,
        show_default=described.removesuffix(".") or True,
        autocompletion=completes,
    )
    if field.default is not MISSING:
        default = None if field.default == () else field.default  # an empty list would be shown as a default
        return _parameter(field.name, Annotated[_accepted(kind), option], default)
    is_required = field.default_factory is MISSING and not has_recipe
    return _parameter(field.name, Annotated[_accepted(kind) | None, option], Parameter.empty if is_required else None)


def _accepted(kind: Any) -> Any:
    """The type of a field as typer knows it: what can be given several times is a list."""
    if {str, int} <= set(get_args(kind)):
        return str | None  # it knows no other unions
    return GenericAlias(list, get_args(kind)[:1]) if get_origin(kind) is tuple else kind


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
