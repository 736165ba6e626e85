"""Experiments: composed of environment, training and evaluation; flat in files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from kvroam.envs.base import registry
from kvroam.envs.handover.config import HandoverConfig, resolve
from kvroam.envs.handover.task import HandoverTask
from kvroam.errors import ConfigError
from kvroam.experiment import (
    EvaluateConfig,
    Experiment,
    TrainConfig,
    build_experiment,
    file_class,
    flat,
    load_experiment,
    scenarios,
)
from kvroam.settings.loader import shipped


@dataclass(frozen=True)
class Miniature:
    """Another environment's settings."""

    task: ClassVar[str] = "miniature"
    size: int = 3


@pytest.fixture
def miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    registry.add("miniature", f"{__name__}:Task")
    home = SimpleNamespace(Task=SimpleNamespace(Config=Miniature))
    monkeypatch.setattr(registry, "import_module", lambda name: home if name == __name__ else import_module(name))
    file_class.cache_clear()


def test_an_experiment_has_its_three_parts() -> None:
    one = load_experiment("handover", ["num_ues=4", "train.seed=3", "evaluate.episodes=2"])
    assert type(one.environment) is HandoverConfig and one.environment.num_ues == 4
    assert one.train == TrainConfig(seed=3) and one.evaluate.episodes == 2


@pytest.mark.parametrize("name", shipped())
def test_the_flat_form_is_json_and_makes_an_equal_experiment(name: str, tmp_path: Path) -> None:
    one = load_experiment(name)
    text = json.dumps(flat(one), allow_nan=False)
    assert build_experiment(json.loads(text)) == one
    (tmp_path / "config.json").write_text(text)
    assert load_experiment(tmp_path / "config.json") == one


@pytest.mark.parametrize(("mapping", "words"), [
    ({"num_use": 3}, ["num_use", "num_ues"]),
    ({"total_steps": 3}, ["total_steps", "train.total_steps"]),
    ({"episodes": 3}, ["episodes", "did you mean 'evaluate.episodes'"]),
    ({"train": {"sed": 3}}, ["train.sed", "train.seed"]),
    ({"evaluate": {"seed": "x"}}, ["evaluate.seed", "'x'", "int"]),
    ({"train": {"gamma": 2.0}}, ["train: gamma is 2.0"]),
    ({"num_ues": 0}, ["num_ues is 0"]),
    ({"tsk": "handover"}, ["tsk", "'task'"]),
    ({"task": "handovr"}, ["handovr", "did you mean 'handover'"]),
    ({"task": 3}, ["task is 3", "handover"]),
])
def test_what_cannot_be_is_named_with_the_nearest_key_of_any_section(mapping: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_experiment(mapping, where="x.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("miniature")
def test_the_task_names_the_environment() -> None:
    one = build_experiment({"task": "miniature", "size": 5, "train": {"seed": 1}})
    assert one == Experiment(Miniature(5), TrainConfig(seed=1), EvaluateConfig())
    assert flat(one)["task"] == "miniature" and build_experiment(flat(one)) == one
    with pytest.raises(ConfigError, match="num_ues"):
        build_experiment({"task": "miniature", "num_ues": 5})
    with pytest.raises(ConfigError, match="this environment is 'handover'"):
        resolve({"task": "miniature"})


def test_grid_stands_for_the_scenarios_of_a_task() -> None:
    assert scenarios("grid") == scenarios("grid:handover") == HandoverTask.scenarios
    assert scenarios("calm") == ("calm",) and scenarios("my/grid.yaml") == ("my/grid.yaml",)
    with pytest.raises(ConfigError, match=r"'handovr' is unknown.*handover"):
        scenarios("grid:handovr")


def test_a_name_belongs_to_one_task() -> None:
    registry.add("handover", "kvroam.envs.handover:HandoverTask")
    with pytest.raises(ConfigError, match="already"):
        registry.add("handover", "elsewhere:Config")


def test_an_environment_leaves_the_other_sections_aside(tmp_path: Path) -> None:
    mapping = {"task": "handover", "num_ues": 4, "train": {"seed": 3}, "evaluate": None}
    assert resolve(mapping) == HandoverConfig(num_ues=4)
    (tmp_path / "x.yaml").write_text(json.dumps(mapping))
    assert resolve(tmp_path / "x.yaml", ["train.seed=4"]) == HandoverConfig(num_ues=4)
    assert mapping["train"] == {"seed": 3}
    with pytest.raises(ConfigError, match=r"num_use.*num_ues"):
        resolve({"num_use": 3})
    with pytest.raises(ConfigError, match="environment"):
        resolve(Experiment(HandoverConfig()))  # type: ignore[arg-type]
