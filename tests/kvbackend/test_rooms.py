"""How the folder is built: imports run one way, what runs needs nothing that trains, configurations need no torch."""

import ast
import graphlib
import subprocess
import sys
import tomllib
from pathlib import Path

import kvroam.kvbackend as package

ROOT = Path(package.__file__).parent


def imported(path: Path) -> set[Path]:
    """Modules of this folder that a file imports anywhere: at the top, in functions, for type checking only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = path.parents[node.level - 1]
        base = base.joinpath(*node.module.split(".")) if node.module else base
        for target in (base, *(base / alias.name for alias in node.names)):
            found |= {file for file in (target.with_suffix(".py"), target / "__init__.py") if file.is_file()}
    return {file for file in found if ROOT in file.parents} - {path}


def test_no_imports_run_in_a_circle():
    graph = {path: imported(path) for path in ROOT.rglob("*.py") if path.name != "__init__.py"}
    assert sum(map(len, graph.values())) > 100
    graphlib.TopologicalSorter(graph).prepare()


def test_what_runs_does_not_import_what_trains():
    training = ROOT / "embedded" / "training"
    for path in ROOT.rglob("*.py"):
        if training not in path.parents:
            assert not [file for file in imported(path) if training in file.parents], path


def test_every_folder_says_what_it_is_for_and_is_installed():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).parent.parts
        assert ".".join(("kvroam", *parts)) in listed
        assert ast.get_docstring(ast.parse((path.parent / "__init__.py").read_text(encoding="utf-8")))


def run(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_importing_the_package_and_its_settings_does_not_import_torch():
    assert not run(
        "import sys, kvroam.kvbackend; from kvroam.kvbackend import KVSettings, SCORERS, TransferPlan;"
        "TransferPlan(keep=.5); KVSettings(scorer=SCORERS['window'](pool=3));"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers')))"
    )


def test_every_public_name_can_be_imported():
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
