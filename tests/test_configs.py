"""The shipped experiments: every key is there, and with no line changed they are the defaults of the code."""

from __future__ import annotations

import pytest

from kvroam.configs import GRID
from kvroam.envs.handover.config import HandoverConfig, resolve
from kvroam.experiment import Experiment, file_class, flat, load_experiment
from kvroam.settings.loader import fingerprint, missing_keys, read, shipped


def test_the_default_experiment_is_the_default_of_the_code() -> None:
    assert load_experiment("handover") == Experiment(HandoverConfig())


@pytest.mark.parametrize("name", shipped())
def test_shipped_experiments_name_every_key(name: str) -> None:
    assert missing_keys(file_class(), read(name)) == []


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
    assert set(GRID) | {"mix", "handover"} == set(shipped())
    prints = {name: fingerprint(flat(load_experiment(name))) for name in shipped() if name != "handover"}
    assert len(set(prints.values())) == len(prints)
    assert prints["default"] == fingerprint(flat(Experiment(HandoverConfig())))
