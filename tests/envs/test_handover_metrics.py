"""The meter of Handover: what an interruption is, backfills, repairs, wrong answers; by hand-made steps."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from kvroam.envs.handover.config import HandoverConfig
from kvroam.envs.handover.metrics import METRICS, EpisodeMeter
from kvroam.envs.handover.scoring import Scores
from kvroam.envs.handover.task import HandoverTask
from kvroam.envs.handover.world.state import BACKFILLED, EVENT, INTERRUPTED, REPAIRED, RESUMED, allocate


class Steps:
    """A task of two users whose steps are made by hand."""

    def __init__(self, scored: bool = True) -> None:
        self.num_envs, self.num_agents, self.metrics = 1, 2, METRICS
        self.config, self.scorer = HandoverConfig(), object() if scored else None
        self.scores = Scores.zeros((1, 2)) if scored else None
        self.sim = SimpleNamespace(state=allocate(1, 2, 3, 4, 4), interval_s=0.1)
        self.happened: list[np.void] = []
        self.meter = EpisodeMeter(self)

    def events(self):
        return iter([(0, event) for event in self.happened])

    def note(self, kind: int, ue: int, time_s: float, **values: float) -> None:
        event = np.zeros((), EVENT)
        event["kind"], event["ue"], event["time_s"] = kind, ue, time_s
        for name, value in values.items():
            event[name] = value
        self.happened.append(event)

    def step(self) -> None:
        self.meter.add(SimpleNamespace(task=self, reward=np.zeros((1, 2)), num_agents=2))
        self.happened.clear()


def test_an_interruption_lasts_without_service_and_is_felt_while_its_user_waits() -> None:
    steps = Steps()
    steps.note(RESUMED, 0, 0.05, interruption_s=0.3, felt_s=0.1)
    steps.note(RESUMED, 1, 0.06, interruption_s=0.1, felt_s=0.0)
    ue, world = steps.sim.state.ue, steps.sim.state.world
    world["time_s"], ue["phase"][0, 0], ue["handover_s"][0, 0], ue["felt_s"][0, 0] = 1.0, INTERRUPTED, 0.5, 0.2
    steps.step()
    result = steps.meter.result(0)
    assert result["interruption_s_mean"] == pytest.approx(0.3) and result["interruption_s_worst"] == pytest.approx(0.5)
    assert result["felt_s_mean"] == pytest.approx(0.1)


def test_backfills_take_from_the_resumption_to_the_arrival_of_the_rest_and_repairs_are_counted() -> None:
    steps = Steps()
    assert math.isnan(steps.meter.result(0)["backfill_s_mean"])
    steps.note(RESUMED, 0, 1.0, rest=True)
    steps.note(RESUMED, 1, 1.0, rest=True)  # its rest never comes
    steps.step()
    steps.note(RESUMED, 0, 1.2)  # an interruption of the radio while the rest follows
    steps.note(BACKFILLED, 0, 1.5)
    steps.note(REPAIRED, 1, 1.6)
    steps.step()
    steps.note(RESUMED, 0, 2.0, rest=True)
    steps.note(BACKFILLED, 0, 2.1)
    steps.step()
    result = steps.meter.result(0)
    assert result["backfills"] == 2 and result["repairs"] == 1
    assert result["backfill_s_mean"] == pytest.approx((0.5 + 0.1) / 2)
    steps.meter.forget(np.array([0]))
    result = steps.meter.result(0)
    assert result["backfills"] == result["repairs"] == 0


def test_strict_recall_is_a_share_and_wrong_answers_are_per_user() -> None:
    steps = Steps()
    assert steps.scores is not None
    steps.scores.strict_hits[0], steps.scores.strict_total[0] = [1.0, 0.0], [3.0, 1.0]
    steps.scores.wrong[0] = [2.0, 1.0]
    steps.step()
    result = steps.meter.result(0)
    assert result["recall_strict"] == pytest.approx(0.25) and result["wrong"] == pytest.approx(1.5)


def test_without_a_language_model_nobody_is_said_to_answer_right() -> None:
    steps = Steps(scored=False)
    steps.step()
    result = steps.meter.result(0)
    assert math.isnan(result["wrong"]) and math.isnan(result["recall_strict"]) and math.isnan(result["drift_kl_mean"])


def test_the_headline_shows_what_is_avoidable_and_the_strict_recall() -> None:
    assert HandoverTask.headline == ("cost", "avoidable_cost", "interruption_s_mean", "interruption_s_p95",
                                     "drift_kl_mean", "recall_strict", "backhaul_gb")
    assert set(HandoverTask.headline) <= {metric.name for metric in METRICS}
