"""Ablations: what is missing is missing, in training and when it is played; killed runs go on; a page by hand."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from kvroam.agents.registry import make
from kvroam.benchmarks import ablations
from kvroam.benchmarks.ablations_page import compare, page
from kvroam.envs import make_core
from kvroam.envs.handover import actions
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.world.state import CANCEL, CONTINUE, PREPARING
from kvroam.errors import ConfigError
from kvroam.evaluation.rollout import rollout

FAST = ["scoring.mode=none", "num_ues=4", "episode_s=20.0", "mobility.vehicle_share=1.0",
        "mobility.vehicle_speed_mps=[20.0, 30.0]"]
TINY = ["num_ues=3", "episode_s=3.0", "train.num_envs=2", "train.rollout_steps=8", "train.batch_size=32",
        "train.epochs=1", "train.hidden=[8]", "train.evaluate_episodes=2", "train.imitate=greedy-planner",
        "train.imitate_episodes=1", "train.imitate_rounds=2", "train.imitate_epochs=1"]


def run(tmp_path: Path, *more: str) -> list[dict[str, str]]:
    """A run of tiny trainings; its table."""
    ablations.command(["--config", "handover", "--steps", "64", "--scenarios", "default", "--episodes", "2", "--quiet",
                       "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), *more, "--set", *TINY])
    return list(csv.DictReader((tmp_path / "ablations.csv").open()))


@pytest.mark.parametrize("trigger", ["a3", "policy"])
def test_without_lead_time_no_action_prepares_a_neighbour(trigger):
    rng = np.random.default_rng(0)
    prepared = {}
    for prepare in ("true", "false"):
        config = resolve("handover", [*FAST, f"actions.prepare={prepare}", f"actions.trigger={trigger}"])
        core = make_core(config, 2)
        core.reset([1, 2])
        task, seen = core.task, 0
        for _ in range(core.config.max_steps):
            chosen = rng.integers(0, actions.sizes(config.actions), (2, 4, len(task.parts)))
            plans = task.decode(chosen)
            own = np.take_along_axis(core.view.candidates, np.zeros((2, 4, 1), int), axis=2)[..., 0]
            if prepare == "false":
                assert (np.isin(plans["target"], (CONTINUE, CANCEL)) | (plans["target"] == own)).all()
                neighbours = task.masks()[..., 2:2 + config.actions.candidates]
                assert neighbours.any() == (trigger == "policy")
            core.step(plans)
            ue = task.sim.state.ue
            seen += int(((ue["phase"] == PREPARING) & (ue["target"] != ue["radio"])).sum())
        prepared[prepare] = seen
    assert prepared["true"] > 0 and prepared["false"] == 0


def test_the_planner_moves_sessions_at_the_handover_where_nothing_can_be_prepared():
    moved = {}
    for prepare in ("true", "false"):
        config = resolve("handover", [*FAST, f"actions.prepare={prepare}"])
        core, prepared = make_core(config, 2), 0
        for step in rollout(core, make("greedy-planner", config), [3, 4]):
            prepared += int((core.task.sim.state.ue["phase"] == PREPARING).sum()) if step else 0
        moved[prepare] = prepared
    assert moved["true"] > 0 and moved["false"] == 0


def test_every_variant_differs_from_the_full_training_and_keeps_its_budget():
    plan = ablations.Plan("roamer_ppo", 5000, "mix", ())
    full = plan.experiment(ablations.FULL, 3)
    assert full.train.total_steps == 5000 and full.train.seed == 3 and len(full.train.worlds) > 10
    for name, variant in ablations.VARIANTS.items():
        found = plan.experiment(name, 3)
        assert found.train.total_steps == 5000 and (found == full) == (name == ablations.FULL)
        worlds = max(1, len(found.train.worlds))
        assert found.train.num_envs * worlds == full.train.num_envs * len(full.train.worlds)
        assert all(world.endswith(" ".join(variant.actions)) for world in found.train.worlds)
        # The policy acts with the same choices where it is played.
        assert plan.played_in(name, "held_out_city").environment.actions == found.environment.actions
        assert plan.played_in(name, "held_out_city").environment.scene == "florence"
    assert ablations.possible(plan) == list(ablations.VARIANTS)
    assert not plan.experiment("no lead time", 0).environment.actions.prepare
    assert plan.experiment("no decision points", 0).train.worlds == ("mix",)


def test_a_run_is_written_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    chosen = ("no lead time", "no mask", "no credit", "imitation alone", "no decision points")
    rows = run(tmp_path, "--variants", *chosen)
    names = {row["variant"] for row in rows}
    assert names == {"full", *chosen, "one world", "greedy-planner"} and len(rows) == 16
    text = (tmp_path / "ablations.md").read_text()
    assert "**no lead time**" in text and "--variants 'no lead time'" in text and str(tmp_path) not in text
    before = (tmp_path / "runs" / "rows.jsonl").read_text()
    monkeypatch.setattr("kvroam.train.train", None)
    monkeypatch.setattr(ablations, "outcomes", None)
    assert run(tmp_path, "--variants", *chosen) == rows
    assert (tmp_path / "runs" / "rows.jsonl").read_text() == before and len(json.loads(before.splitlines()[1])) == 6


def test_the_numbers_of_the_planner_are_learned_without_what_it_can_do_without(tmp_path, monkeypatch):
    pytest.importorskip("cma")
    few = ["train.algorithm=evolution", "train.generations=2", "train.population=4", "train.evolution_episodes=1",
           "train.workers=1", "train.imitate=null", "num_ues=4", "episode_s=15.0", "mobility.vehicle_share=1.0",
           "mobility.vehicle_speed_mps=[20.0,30.0]"]
    plan = ablations.Plan("handover", 64, "mix", tuple(few))
    assert ablations.possible(plan) == ["full", "no lead time", "no compression", "no backfill"]
    ablations.trained(plan.experiment("no lead time", 0), tmp_path / "run", True)
    (row,) = ablations.rows(plan, "no lead time", str(tmp_path / "run"), 0, "default", "default", [5])
    assert row["variant"] == "no lead time" and row["cost"] >= row["avoidable_cost"]
    monkeypatch.setattr("kvroam.train.train", None)
    ablations.trained(plan.experiment("no lead time", 0), tmp_path / "run", True)


def test_a_training_of_other_settings_is_refused(tmp_path):
    plan = ablations.Plan("handover", 64, "mix", tuple(TINY))
    experiment = plan.experiment(ablations.FULL, 0)
    folder = tmp_path / "full-0"
    folder.mkdir()
    from kvroam.experiment import flat

    (folder / "config.json").write_text(json.dumps(flat(plan.experiment("no mask", 0))))
    (folder / "policy.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="training of other settings"):
        ablations.trained(experiment, folder, True)


def made_up(factor: float) -> list[dict[str, object]]:
    """Rows of which "no mask" costs `factor` times the full training, and the rival half of it, nearly."""
    rng = np.random.default_rng(1)
    found: list[dict[str, object]] = []
    for scenario in ("a", "b"):
        for seed in range(16):
            cost = float(rng.uniform(0.5, 1.5))
            for name, times in (("full", 1.0), ("no mask", factor), ("greedy-planner", 0.5)):
                noise = 1.0 if name == "full" else float(rng.uniform(0.98, 1.02))
                found.append({"variant": name, "train_seed": 0, "scenario": scenario, "seed": seed,
                              "avoidable_cost": cost * times * noise, "cost": cost})
    return found


@pytest.mark.parametrize("factor, says", [(1.5, "50% more than the full training"), (0.6, "40% less"),
                                          (1.0, "no difference")])
def test_the_page_says_what_the_numbers_say(factor, says):
    rows = made_up(factor)
    assert compare(rows, "no mask", "full").ratio == pytest.approx(factor, rel=0.02)
    assert compare(rows, "full", "full").ratio == 1.0
    args = Namespace(config="roamer_ppo", episodes=16, train_seeds=[0])
    text = page(rows, {name: ablations.VARIANTS[name] for name in ("full", "no mask")}, "10 decisions", "make", args)
    assert says in text and "`greedy-planner`, which is not trained, is cheaper" in text


@pytest.mark.parametrize("wrong, message", [(["--episodes", "0"], "--episodes is 0"),
                                            (["--variants", "no luck"], "no luck: choose among")])
def test_options_that_cannot_be_are_refused(wrong, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        ablations.command(["--out", str(tmp_path), *wrong])
