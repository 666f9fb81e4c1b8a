"""The rooms of the package: their drawing in CONTRIBUTING.md is correct, and imports go one way."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documents import blocks

PACKAGE = ROOT / "src/s3_to_ecr"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
# The modules above all rooms. The others beside the rooms are below them.
ABOVE = ["handler", "app", "dispatcher"]
BELOW = sorted({path.stem for path in PACKAGE.glob("*.py")} - {"__init__", *ABOVE})

TREE, ARROWS = [block for block in blocks((ROOT / "CONTRIBUTING.md").read_text(), "") if "dispatcher" in block]


def modules() -> list[Path]:
    return [ROOT / "src/handler.py", *sorted(PACKAGE.rglob("*.py"))]


def place(dotted: str) -> str:
    """The room of a module of ours, or the module itself if it is in none."""
    return dotted.removeprefix("s3_to_ecr.").split(".")[0]


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, anywhere in it, by their dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in submodules if is_module(name)} or {node.module}
    return {name for name in found if name.startswith("s3_to_ecr.")}


def is_module(dotted: str) -> bool:
    path = ROOT / "src" / dotted.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")


def drawn() -> dict[str, set[str]]:
    lines = (line.split("→") for line in ARROWS.splitlines() if "→" in line)
    return {name.strip(): set(imported.split()) for name, imported in lines}


def test_the_drawing_shows_the_imports() -> None:
    found: dict[str, set[str]] = {name: set() for name in [*ABOVE, *ROOMS]}
    for path in modules():
        importer = place(dotted(path))
        found.setdefault(importer, set()).update(place(name) for name in imports(path))
    found.pop("s3_to_ecr")  # the package's own __init__.py

    for name in BELOW:
        assert found.pop(name) <= set(BELOW), f"{name}.py is below all rooms"
    assert {name: imported - {name, *BELOW} for name, imported in found.items()} == drawn()


def test_the_drawn_imports_go_one_way() -> None:
    order = list(drawn())
    for number, name in enumerate(order):
        assert drawn()[name] <= set(order[number + 1 :])


def test_there_are_no_circular_imports() -> None:
    graph = {dotted(path): imports(path) for path in modules()}

    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_the_tree_names_every_module_in_its_room() -> None:
    named: set[str] = set()
    room = ""
    for line in TREE.partition("src/s3_to_ecr/\n")[2].partition("\nlocal/")[0].splitlines():
        if found := re.match(r"  (\w+)/ ", line):
            room = f"{found[1]}/"
        elif line.startswith("  ") and line[2] != " ":
            room = ""
        named |= {room + name for name in re.findall(r"\b\w+\.py\b", re.split(r" {3,}\w+[^.]*$", line)[0])}

    there = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    assert {name for name in named if (PACKAGE / name).exists()} == there
    assert {f"{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")} == set(
        re.findall(r"^  (\w+)/ ", TREE, re.MULTILINE)
    )


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_in_its_first_sentences_what_belongs_there_and_what_does_not(room: str) -> None:
    docstring = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))

    assert docstring
    assert len(re.findall(r"\.(?:\s|$)", docstring.partition("\n\n")[0])) == 2


def test_no_file_outside_the_package_names_its_modules() -> None:
    """The template names only `handler.lambda_handler`, so the package's modules can move."""
    for name in ("template.yaml", "samconfig.toml", "Makefile", ".ci/run"):
        assert "s3_to_ecr" not in (ROOT / name).read_text()
