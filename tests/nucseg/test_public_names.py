"""`import nucseg` is instant, and is all that a notebook needs."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module

import pytest

import nucseg


def declared() -> dict[str, str]:
    """Name -> module, as type checkers read them."""
    (block,) = (node for node in ast.parse(inspect.getsource(nucseg)).body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("name", declared())
def test_a_name_is_what_type_checkers_take_it_for(name: str) -> None:
    assert getattr(nucseg, name) is getattr(import_module(declared()[name]), name)


def test_the_interface_covers_the_stages_their_configurations_and_the_store() -> None:
    stages = {"embed", "train", "report", "predict", "distill"}

    assert declared().keys() >= stages | {f"{stage.capitalize()}Config" for stage in stages} | {
        "Predictor", "Run", "Store", "open_store",
    }  # fmt: skip
    assert declared().keys() <= set(dir(nucseg))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'nucseg' has no attribute 'trian'"):
        nucseg.trian  # noqa: B018


def test_the_import_loads_no_library() -> None:
    code = "import sys; before = set(sys.modules); import nucseg; print({m.partition('.')[0] for m in sys.modules} - "
    code += "{m.partition('.')[0] for m in before} - set(sys.stdlib_module_names))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loaded.strip() == "{'nucseg'}"
