"""The rooms stand on each other as docs/architecture.md says: no import goes up, and none goes round in a circle."""

from __future__ import annotations

import ast
import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("agents", "benchmarks", "configs", "envs", "evaluation", "kvbackend", "settings", "training")


def _drawn() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_architecture", ROOT / "docs" / "make_architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _modules() -> dict[str, Path]:
    """Every module of the package by its name inside it, e.g. envs.base.core."""
    files = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
            for path in files}


MODULES = _modules()


def _imports(name: str) -> set[str]:
    """Modules of the package that a module imports, wherever in its text: in functions and for type checkers too."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("kvroam.") for alias in node.names if alias.name.startswith("kvroam.")}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = ".".join([*package[:len(package) - node.level + 1], *(node.module or "").split(".")]).strip(".")
            elif (node.module or "").split(".")[0] == "kvroam":
                base = (node.module or "").removeprefix("kvroam").strip(".")
            else:
                continue
            for alias in node.names:
                inside = f"{base}.{alias.name}".strip(".")
                found.add(inside if inside in MODULES else base)
    return {module for module in found if module in MODULES and module not in (name, "")}


GRAPH = {name: _imports(name) for name in MODULES}


def test_the_imports_are_found() -> None:
    assert {"envs.base.pricing", "envs.base.spaces", "envs.base.task"} <= GRAPH["envs.base.core"]
    assert "kvbackend" in {module.split(".")[0] for module in GRAPH["envs.handover.scoring"]}, "imports in functions"


def test_no_import_goes_up() -> None:
    floors = {room: k for k, rooms in enumerate(_drawn().FLOORS) for room, _ in rooms}

    def room(module: str) -> str | None:
        return next((name for name in floors if module == name or module.startswith(name + ".")), None)

    wrong = [f"{name} imports {other}" for name, others in GRAPH.items() for other in others
             if (here := room(name)) and (there := room(other)) and here != there and floors[there] >= floors[here]]
    assert not wrong
    unnamed = {name for name in MODULES if room(name) is None} - {"", "configs", "envs"}
    assert not unnamed, "every module has a room in the picture"


def test_no_imports_in_circles() -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name):], name])
        if name not in done:
            for other in sorted(GRAPH[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(GRAPH):
        visit(name, ())


def test_every_room_says_what_it_is_for_and_is_packaged() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    packages = {"kvroam", *(f"kvroam.{name}" for name, path in MODULES.items() if path.name == "__init__.py" and name)}
    assert set(listed) == packages
    for name, path in MODULES.items():
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name


@pytest.mark.parametrize("name", ["architecture.svg"])
def test_the_picture_is_the_one_that_the_program_draws(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == _drawn().svg()
