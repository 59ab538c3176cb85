"""A user who installs the package has every library that its code imports."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = {"nucseg": "nucseg", "nucseg_cache": "cache/nucseg_cache", "nucseg_pipeline": "pipeline/nucseg_pipeline"}
FOR_DEVELOPERS = {"dev", "docs"}
FOR_TYPE_CHECKERS = {"_typeshed"}


def imported_libraries(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from ((name.partition(".")[0], path) for name in names)


def distribution(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def test_every_library_that_is_imported_is_a_dependency_or_in_an_extra_for_users() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [needs for name, needs in project["optional-dependencies"].items() if name not in FOR_DEVELOPERS]
    declared = {distribution(requirement) for needs in (project["dependencies"], *extras) for requirement in needs}
    providers = packages_distributions()

    missing = {
        f"{library} in {path.relative_to(REPOSITORY)}"
        for folder in PACKAGES.values()
        for library, path in imported_libraries(REPOSITORY / folder)
        if library not in sys.stdlib_module_names | PACKAGES.keys() | FOR_TYPE_CHECKERS
        and not {distribution(name) for name in providers.get(library, [library])} & declared
    }

    assert missing == set()
