"""Evaluation by several processes: the same numbers, errors in one line, nothing left behind."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from kvroam import agents
from kvroam.envs import make_core
from kvroam.errors import ConfigError, PolicyError
from kvroam.evaluate import command
from kvroam.evaluation.results import evaluate
from kvroam.evaluation.rollout import episodes
from kvroam.evaluation.units import SIDE_BY_SIDE, Stage, Unit, blocks
from kvroam.experiment import build_experiment, flat, load_experiment, scenarios

QUICK = ["num_ues=4", "episode_s=5.0", "scoring.mode=none"]
KV = ["num_ues=4", "episode_s=6.0", "sessions.scripts=4"]


def numbers(results: dict) -> str:
    """All that was measured, as text: equal to the last digit or not equal."""
    return str({name: {key: one[key] for key in ("episodes", "parts", "summary")}
                for name, one in results["policies"].items()})


def test_blocks_hold_every_seed_once_and_in_order() -> None:
    for count in (1, SIDE_BY_SIDE - 1, SIDE_BY_SIDE, SIDE_BY_SIDE + 1, 3 * SIDE_BY_SIDE + 2):
        cut = blocks(range(7, 7 + count))
        assert [seed for block in cut for seed in block] == list(range(7, 7 + count))
        assert all(len(block) == SIDE_BY_SIDE for block in cut[:-1])


@pytest.mark.slow
def test_two_processes_measure_what_one_does_to_the_last_digit() -> None:
    experiments = {"a": load_experiment("handover", KV), "b": load_experiment("calm", QUICK)}
    policies = ["token-aware", "low=cho:bits=4", "random"]
    one = evaluate(experiments, policies, SIDE_BY_SIDE + 1, 3)
    seen: list[tuple[str, int, int]] = []
    two = evaluate(experiments, policies, SIDE_BY_SIDE + 1, 3, lambda *news: seen.append(news), workers=2)
    assert numbers(one) == numbers(two)
    assert [*two["policies"]] == ["token-aware", "low", "random"]
    assert [done for _, done, _ in seen] == list(range(1, seen[-1][2] + 1)), "every step is told once"


@pytest.mark.parametrize("policy", ["ctho", "random", "greedy-planner", "pallas"])
def test_without_a_language_model_an_episode_does_not_know_its_block(policy: str) -> None:
    experiment = load_experiment("rush_hour", ["episode_s=5.0", "num_ues=6", "scoring.mode=none"])

    def play(seeds: list[int]) -> list:
        core = make_core(experiment.environment, len(seeds))
        *_, found = episodes(core, agents.make(policy, experiment.environment), seeds, experiment.evaluate)
        return found or []

    together = play([5, 6, 7, 8])
    assert str(together) == str([row for seed in (5, 6, 7, 8) for row in play([seed])])


def test_with_a_language_model_only_the_last_digits_of_the_drift_know_it() -> None:
    experiment = load_experiment("handover", KV)

    def play(seeds: list[int]) -> list[dict[str, float]]:
        core = make_core(experiment.environment, len(seeds))
        *_, found = episodes(core, agents.make("token-aware", experiment.environment), seeds, experiment.evaluate)
        return [metrics for metrics, _ in found or []]

    together, alone = play([5, 6, 7]), [row for seed in (5, 6, 7) for row in play([seed])]
    for a, b in zip(together, alone, strict=True):
        exact = [name for name in a if name not in ("cost", "avoidable_cost", "drift_kl_mean")]
        assert str([a[name] for name in exact]) == str([b[name] for name in exact])
        np.testing.assert_allclose([*a.values()], [*b.values()], rtol=0, atol=1e-4)


def test_a_core_that_is_used_again_plays_as_a_new_one() -> None:
    stage = Stage({"x": load_experiment("handover", KV)})
    fresh = Stage({"x": load_experiment("handover", KV)})
    stage.play(Unit("x", "a", "random", 0, (1, 2)), lambda: None)
    unit = Unit("x", "b", "token-aware", 0, (7, 8))
    again, new = stage.play(unit, lambda: None), fresh.play(unit, lambda: None)
    assert str((again.metrics, again.parts)) == str((new.metrics, new.parts))


@pytest.mark.parametrize("name", scenarios("grid"))
def test_what_a_worker_is_sent_describes_the_scenario_wholly(name: str) -> None:
    experiment = load_experiment(name, ["scoring.mode=none"])
    assert build_experiment(flat(experiment)) == experiment


def test_objects_play_in_this_process_and_texts_in_the_others() -> None:
    experiment = load_experiment("handover", QUICK)
    cho = agents.make("cho", experiment.environment)
    results = evaluate(experiment, {"object": cho, "text": "cho"}, 2, 0, workers=2)["policies"]
    assert str(results["object"]["episodes"]) == str(results["text"]["episodes"])


def test_what_a_worker_cannot_do_is_one_error_and_no_process_is_left(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Wrong:\n    def act(self, view):\n        return 'nothing'\n")
    with pytest.raises(PolicyError, match="Wrong"):
        evaluate(load_experiment("handover", QUICK), [f"{file}:Wrong", "cho"], 2, 0, workers=2)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, -3])
def test_fewer_workers_than_one_are_refused(workers: int, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ConfigError, match=f"workers is {workers}: at least 1"):
        evaluate(load_experiment("handover", QUICK), ["cho"], 1, 0, workers=workers)
    assert command.main(["--workers", str(workers), "--out", str(tmp_path / "out")]) == 2
    assert "at least 1" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_leaving_early_ends_the_workers() -> None:
    experiment = load_experiment("handover", ["num_ues=4", "episode_s=600.0", "scoring.mode=none"])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        evaluate(experiment, ["cho", "tho"], 1, 0, stop, workers=2)
    assert not set(multiprocessing.active_children()) - before
