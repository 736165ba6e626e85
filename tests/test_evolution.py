"""`train.algorithm: evolution`: the same numbers for any number of processes and after a stop, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kvroam import agents
from kvroam.agents import policy_file
from kvroam.agents.handover.judgement import TUNABLE, Judgement, judgement, slowness
from kvroam.agents.handover.planner import GreedyPlanner, tuned
from kvroam.envs import make_core
from kvroam.errors import ConfigError, PolicyError
from kvroam.experiment import Experiment, load_experiment
from kvroam.train import train
from kvroam.training import evolution

FEW = ["train.algorithm=evolution", "train.population=4", "train.evolution_episodes=1", "episode_s=4.0", "num_ues=4",
       "scoring.mode=table"]


def experiment(generations: int, workers: int = 1, *more: str) -> Experiment:
    return load_experiment("handover", [*FEW, f"train.generations={generations}", f"train.workers={workers}", *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two generations."""
    out = tmp_path_factory.mktemp("evolution") / "mine"
    train(experiment(2), out, quiet=True)
    return out


def told(out: Path) -> list[tuple]:
    """What the generations found; how long they took is left out."""
    rows = json.loads((out / evolution.HISTORY).read_text(encoding="utf-8"))
    return [(row["values"], row["mean"], row["worlds"]) for row in rows]


def numbers(out: Path) -> np.ndarray:
    return policy_file.read(out / "policy.safetensors").tensors["numbers"]


@pytest.mark.slow
def test_two_processes_find_what_one_does(run: Path, tmp_path: Path) -> None:
    train(experiment(2, workers=2), tmp_path / "two", quiet=True)
    assert told(tmp_path / "two") == told(run) and np.array_equal(numbers(tmp_path / "two"), numbers(run))


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(
        run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, played = tmp_path / "mine", []
    inner = evolution.play

    def stopped(job: evolution.Job) -> list[float]:
        played.append(job)
        if len(played) == 2:
            raise KeyboardInterrupt
        return inner(job)

    monkeypatch.setattr(evolution, "play", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(experiment(2), out, quiet=True)
    assert len(told(out)) == 1
    monkeypatch.setattr(evolution, "play", inner)
    train(experiment(2), out, quiet=True, resume=True)
    assert told(out) == told(run) and np.array_equal(numbers(out), numbers(run))


def test_every_generation_plays_its_own_seeds_and_all_candidates_the_same(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[evolution.Job] = []
    monkeypatch.setattr(evolution, "play", lambda job: jobs.append(job) or [1.0 + p.sum() ** 2 for p in job.points])
    train(experiment(3, 1, "train.worlds=[default, calm]"), tmp_path / "mine", quiet=True)
    assert len(jobs) == 6 and len({job.seeds for job in jobs}) == 3
    for job in jobs:
        assert not job.points[0].any(), "the numbers set by hand are played beside the candidates"
        assert len(job.points) == 2 + 4


def test_it_goes_where_costs_fall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goal = np.linspace(-1.0, 1.0, len(TUNABLE))
    monkeypatch.setattr(evolution, "play", lambda job: [1.0 + ((p - goal) ** 2).sum() for p in job.points])
    train(experiment(90, 1, "train.population=16"), tmp_path / "mine", quiet=True)
    assert ((numbers(tmp_path / "mine") - goal) ** 2).sum() < 0.4 * (goal**2).sum()


@pytest.mark.parametrize("content", ["", "[{}]", "[1]", '{"values": 1}'])
def test_a_damaged_history_is_refused(content: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / evolution.HISTORY).write_text(content)
    with pytest.raises(PolicyError, match=r"evolution\.json is damaged"):
        evolution._read(tmp_path)


def test_without_a_history_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"no evolution\.json yet"):
        evolution._read(tmp_path)


def test_a_task_without_such_numbers_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed = agents.registry.catalogue("handover")
    monkeypatch.setattr(evolution, "catalogue", lambda task: policy_file.replace(listed, tunable=None))
    with pytest.raises(ConfigError, match="no policy whose numbers can be learned"):
        train(experiment(1), tmp_path / "mine", quiet=True)


def test_the_policy_is_the_planner_with_these_numbers(run: Path) -> None:
    config = experiment(2).environment
    found, ours = agents.make(str(run), config), tuned(numbers(run).astype(np.float64), config)
    assert isinstance(found, GreedyPlanner) and found.name == "mine" and len(found.training_seeds) > 0
    assert found.judgement == ours.judgement != Judgement()
    cores = [make_core(config, 2) for _ in range(2)]
    for core in cores:
        core.reset([5, 6])
    for _ in range(40):
        plans = [policy.act(core.view) for policy, core in zip((found, ours), cores, strict=True)]
        assert np.array_equal(*plans)
        for core, plan in zip(cores, plans, strict=True):
            core.step(plan)


def test_it_follows_event_a3_where_policies_decide_handovers(run: Path) -> None:
    config = load_experiment("handover", ["actions.trigger=policy", "num_ues=8", "scoring.mode=table"]).environment
    core, policy = make_core(config, 1), agents.make(str(run), config)
    core.reset([3])
    policy.reset(core.view)
    before, changed = core.view.radio_cell, 0
    for _ in range(300):
        core.step(policy.act(core.view))
        changed += int((core.view.radio_cell != before).sum())
        before = core.view.radio_cell
    assert changed > 3


def test_a_network_cannot_start_from_it(run: Path, tmp_path: Path) -> None:
    file = run / "policy.safetensors"
    config = load_experiment("handover", ["num_ues=4", "scoring.mode=table", f"train.start={file}"])
    with pytest.raises(PolicyError, match="no network but numbers"):
        train(config, tmp_path / "net", quiet=True)


def test_numbers_of_another_version_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = experiment(2).environment
    listed = agents.registry.catalogue("handover")
    other = policy_file.replace(listed.tunable, names=("margin",))
    monkeypatch.setattr(agents.registry, "catalogue", lambda task: policy_file.replace(listed, tunable=other))
    with pytest.raises(PolicyError, match="no policy with exactly these"):
        agents.make(str(run), config)


def test_the_origin_is_what_was_set_by_hand_and_slow_links_move_some_numbers() -> None:
    names = list(TUNABLE)
    assert judgement(np.zeros(len(names))) == judgement(np.zeros(len(names)), 2.0) == Judgement()
    point = np.zeros((3, len(names)))
    point[1, names.index("horizon")] = point[2, names.index("horizon@slow_links")] = 1.0
    fast, slow = judgement(point, -1.0), judgement(point, 1.0)
    assert fast.horizon[1] == slow.horizon[1] > 1.0
    assert fast.horizon[2] == pytest.approx(1.0 / slow.horizon[2]) and slow.horizon[2] > 1.0


def test_how_slow_links_are() -> None:
    calm, usual, box = (slowness(load_experiment(name).environment) for name in ("calm", "handover", "edge_box"))
    assert -2.0 <= calm < -1.0 < usual < 0.5 < 1.0 < box <= 2.0
