"""The registry: policies belong to a task, and a further task is a folder with a catalogue."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from kvroam import agents
from kvroam.agents import registry
from kvroam.envs.handover.config import HandoverConfig
from kvroam.errors import PolicyError

CATALOGUE = '''
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kvroam.agents.base import Catalogue, Entry
from kvroam.errors import PolicyError


@dataclass(frozen=True)
class Config:
    """The configuration of a task of two numbers."""

    task: ClassVar[str] = "miniature"
    level: int = 3


class Level:
    """Always the same."""

    name = "level"

    def __init__(self, level, offset=0):
        self.value = level + offset

    def reset(self, view):
        """Nothing to remember."""

    def act(self, view):
        return np.full(2, self.value)


def checked(plans, view, name):
    if np.shape(plans) != (2,):
        raise PolicyError(f"policy {name!r} returned {plans!r}: expected two numbers")
    return plans


CATALOGUE = Catalogue(checked, {
    "level": Entry(Level, "The same.", "ours", "nothing", lambda config: dict(level=config.level))},
    {"level-2": "level:offset=2"})
'''


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The catalogue of a further task, `miniature`."""
    folder = tmp_path / "miniature"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "catalogue.py").write_text(CATALOGUE)
    monkeypatch.setattr(agents, "__path__", [*agents.__path__, str(tmp_path)])
    for name in ("kvroam.agents.miniature", "kvroam.agents.miniature.catalogue"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    registry.catalogue.cache_clear()
    yield registry.catalogue("miniature")
    registry.catalogue.cache_clear()
    for name in ("kvroam.agents.miniature", "kvroam.agents.miniature.catalogue"):
        sys.modules.pop(name, None)
    vars(agents).pop("miniature", None)


def test_a_further_task_is_a_folder_with_a_catalogue(miniature) -> None:
    config = sys.modules["kvroam.agents.miniature.catalogue"].Config(level=4)
    assert registry.tasks() == ("handover", "miniature")
    assert agents.names("miniature") == ("level",) and "ctho" in agents.names() == agents.names("handover")
    for name, value in (("level", 4), ("level:offset=1", 5), ("level-2", 6)):
        assert agents.make(name, config).act(None).tolist() == [value, value]
    assert agents.make(lambda view: np.zeros(2), config).act(None).tolist() == [0.0, 0.0]
    with pytest.raises(PolicyError, match="expected two numbers"):
        agents.make(lambda view: np.zeros(3), config).act(None)
    with pytest.raises(PolicyError, match="choose among level"):
        agents.make("ctho", config)
    assert agents.make("ctho", HandoverConfig()).name == "ctho"


def test_what_belongs_to_no_task_is_named() -> None:
    with pytest.raises(PolicyError, match="task 'chess' has no policies: choose among handover"):
        agents.names("chess")
    with pytest.raises(PolicyError, match="config is a dict: give the configuration of an environment"):
        agents.make("ctho", {})


def test_what_is_independent_of_a_task_knows_none() -> None:
    folder = Path(agents.__file__).parent
    for name in ("base.py", "own.py", "arguments.py", "registry.py", "random.py"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "envs.handover" not in text, name
