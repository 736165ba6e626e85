"""What of `train.engine: rllib` needs no Ray: who plays what, and what is said where Ray is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvroam.errors import ConfigError
from kvroam.experiment import load_experiment
from kvroam.train import train
from kvroam.training.algorithm import environments, make_env
from kvroam.training.rllib import entry
from kvroam.training.rllib.worlds import Share, counts, deal
from kvroam.training.worlds import Worlds


def test_without_ray_the_message_has_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(entry, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -c constraints-rllib.txt '.\[rllib\]'"):
        train(load_experiment("default", ["train.engine=rllib"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("envs", "runners"), [([8], 2), ([7], 3), ([2, 2, 2], 4), ([1] * 5, 2), ([3, 1, 4], 6)])
def test_every_environment_is_played_by_exactly_one_runner(envs: list[int], runners: int) -> None:
    dealt = deal(envs, runners)
    played = [(share.world, e) for shares in dealt for share in shares
              for e in range(share.first, share.first + share.envs)]
    assert sorted(played) == [(w, e) for w, count in enumerate(envs) for e in range(count)]
    shares_of = [sum(share.envs for share in shares) for shares in dealt]
    assert len(dealt) == runners and max(shares_of) - min(shares_of) <= 1


def test_one_world_is_shared_in_equal_parts() -> None:
    assert deal([8], 2) == [[Share(0, 0, 4)], [Share(0, 4, 4)]]


def test_more_runners_than_environments_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"train.runners is 4: there are 3 environments"):
        deal([1, 1, 1], 4)


def test_worlds_of_many_agents_get_as_many_fewer_environments_as_with_the_other_engine() -> None:
    experiment = load_experiment("default", ["train.worlds=['calm num_ues=4', 'calm num_ues=32']", "train.num_envs=8"])
    made = make_env(experiment)
    assert isinstance(made, Worlds)
    worlds = list(environments(experiment).values())
    assert counts(worlds, experiment.train) == [view.core.num_envs for view in made.views] == [8, 4]


@pytest.mark.parametrize(("settings", "words"), [
    (["train.algorithm=mappo"], ["train.algorithm is mappo", "ppo and maskable-ppo"]),
    (["train.algorithm=bc", "train.imitate=greedy-planner"], ["train.algorithm is bc"]),
    (["train.algorithm=recurrent-ppo", "train.decisions=false"], ["train.algorithm is recurrent-ppo"]),
    (["train.imitate=greedy-planner"], ["train.imitate is greedy-planner"]),
    (["train.start=somewhere.safetensors"], ["train.start is somewhere.safetensors"]),
    (["train.critic_first=2"], ["train.critic_first is 2"]),
])
def test_what_only_the_other_engine_does_is_refused_by_name(
        settings: list[str], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        train(load_experiment("default", ["train.engine=rllib", *settings]), tmp_path / "run")
    assert all(word in str(refused.value) for word in [*words, "train.engine=sb3"]), str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be resumed"):
        train(load_experiment("default", ["train.engine=rllib"]), tmp_path / "run", resume=True)
