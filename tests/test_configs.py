"""The shipped experiments: every key is there, and with no line changed they are the defaults of the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from kvroam.envs.handover.config import HandoverConfig, resolve
from kvroam.envs.handover.task import HandoverTask
from kvroam.experiment import Experiment, file_class, flat, load_experiment
from kvroam.kvbackend import SCORERS
from kvroam.kvbackend.embedded.scripts import SITUATIONS
from kvroam.settings.loader import fingerprint, missing_keys, read, shipped


def test_the_default_experiment_is_the_default_of_the_code() -> None:
    assert load_experiment("handover") == Experiment(HandoverConfig())


@pytest.mark.parametrize("name", shipped())
def test_shipped_experiments_name_every_key(name: str) -> None:
    assert missing_keys(file_class(), read(name)) == []


def choices(cls: type) -> dict[str, tuple[str, ...]]:
    """What may be chosen, by key, where settings are one of several words."""
    found: dict[str, tuple[str, ...]] = {}
    for name, kind in get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            found |= {f"{name}.{key}": words for key, words in choices(kind).items()}
        elif get_origin(kind) is Literal:
            found[name] = get_args(kind)
    return found


def explained(text: str) -> dict[str, str]:
    """The line of each key of a YAML file, and the lines of comment that follow it."""
    lines: dict[str, str] = {}
    section = key = ""
    for line in text.splitlines():
        if found := re.match(r"( *)([a-z_]\w*):(.*)", line):
            section = section if found[1] else found[2]
            key = f"{section}.{found[2]}" if found[1] else section
            lines[key] = found[3]
        elif re.match(" +#", line):
            lines[key] += line
    return lines


def test_every_choice_is_named_where_the_key_stands() -> None:
    lines = explained((Path(__file__).parents[1] / "configs" / "handover.yaml").read_text(encoding="utf-8"))
    offered = {**choices(HandoverConfig), "scoring.scorer": tuple(SCORERS), "scoring.situation": (*SITUATIONS, "mixed")}
    assert len(offered) >= 10
    missing = {key: word for key, words in offered.items() for word in words
               if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", lines[key])}
    assert not missing


def test_every_way_to_give_a_configuration_ends_in_the_same() -> None:
    config = resolve({"num_ues": 4, "backhaul": {"capacity_bps": 1e9}})
    assert config.num_ues == 4 and config.backhaul.capacity_bps == 1e9
    assert resolve(config) is config
    assert resolve(None) == resolve("handover") == HandoverConfig()
    assert isinstance(resolve("handover"), HandoverConfig)


def test_one_changed_key_changes_one_value() -> None:
    config = resolve("handover", ["radio.time_to_trigger_s=0.32"])
    assert config.radio.time_to_trigger_s == 0.32
    assert config.max_steps == 600


def test_the_grid_ships_and_each_scenario_differs_from_the_default() -> None:
    assert set(HandoverTask.scenarios) | {"mix", "handover", "demo", "roamer", "roamer_ppo"} == set(shipped())
    prints = {name: fingerprint(flat(load_experiment(name))) for name in shipped() if name != "handover"}
    assert len(set(prints.values())) == len(prints)
    assert prints["default"] == fingerprint(flat(Experiment(HandoverConfig())))
