"""What is shipped: the wheel holds every package and its data, the source distribution what tests and make need."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
# What stands beside the packages; setuptools adds pyproject.toml, README, LICENSE and NOTICE unasked.
OTHERS = {"docs", "tests", ".ci"}


def pins(name: str) -> dict[str, str]:
    """{package: version} of a file of constraints."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def shipped_folders() -> set[Path]:
    """Folders of the package that hold Python files, found by looking."""
    rooms = [init.parent for init in ROOT.glob("*/__init__.py")]
    return {Path()} | {path.parent.relative_to(ROOT) for room in rooms for path in room.rglob("*.py")}


def test_every_folder_of_the_package_is_listed() -> None:
    listed = {Path(*name.split(".")[1:]) for name in SETUPTOOLS["packages"]}
    assert listed == shipped_folders()


def test_every_file_of_data_in_a_package_is_shipped() -> None:
    patterns = [(Path(*name.split(".")[1:]), pattern) for name, found in SETUPTOOLS["package-data"].items()
                for pattern in found]
    data = [path.relative_to(ROOT) for folder in ("configs", "envs", "kvbackend", "agents", "training", "evaluation")
            for path in (ROOT / folder).rglob("*.*")
            if path.suffix != ".py" and "__pycache__" not in path.parts and path.is_file()]
    assert len(data) > 40
    missing = [path for path in data
               if not any(fnmatch(str(path), str(folder / pattern)) for folder, pattern in patterns)]
    assert not missing


def test_the_source_distribution_holds_what_tests_and_make_need() -> None:
    text = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    assert set(re.findall(r"^graft (\S+)$", text, re.M)) == OTHERS
    named = set(re.search(r"^include (.*)$", text, re.M)[1].split())  # type: ignore[index]
    assert named == {"CHANGELOG.md", "Makefile", "constraints.txt", "constraints-rllib.txt"}
    assert all((ROOT / name).is_file() for name in named)


def test_the_set_for_rllib_differs_in_gymnasium_and_ray_only() -> None:
    usual, rllib = pins("constraints.txt"), pins("constraints-rllib.txt")
    assert {name for name in usual | rllib if usual.get(name) != rllib.get(name)} == {"gymnasium", "ray"}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-rllib.txt"])
def test_the_pinned_versions_lie_in_the_ranges_of_the_project(name: str) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["rllib"]]
    found = pins(name)
    checked = 0
    for line in wanted:
        requirement = requirements.Requirement(line)
        if requirement.name in found:
            checked += 1
            assert requirement.specifier.contains(found[requirement.name]), line
    assert checked == len(wanted) - (name == "constraints.txt")
