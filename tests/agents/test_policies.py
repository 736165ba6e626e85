"""Every named policy plays: plans that can be, the same ones every time, one UE, and nobody who moves."""

from __future__ import annotations

import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kvroam import agents
from kvroam.agents.handover.catalogue import CATALOGUE
from kvroam.envs import Core, make_core
from kvroam.envs.handover.config import HandoverConfig, resolve
from kvroam.envs.handover.world.state import CANCEL, CONTINUE, PLAN
from kvroam.errors import PolicyError

QUICK = ("scoring.mode=none", "num_ues=8", "mobility.vehicle_share=1.0", "radio.measurement_noise_db=0.5")
STILL = ("scoring.mode=none", "num_ues=3", "mobility.vehicle_speed_mps=[0.0,0.0]",
         "mobility.pedestrian_speed_mps=[0.0,0.0]", "radio.measurement_noise_db=0.0")
ALONE = ("scoring.mode=none", "num_ues=1", "mobility.vehicle_share=1.0")
ALIASES = CATALOGUE.aliases
EVERY = [*CATALOGUE.entries, *ALIASES]


@cache
def world(changes: tuple[str, ...], envs: int) -> tuple[HandoverConfig, Core]:
    """A configuration and its core, built once."""
    config = resolve("handover", list(changes))
    return config, make_core(config, envs)


def play(name: str, changes=QUICK, seeds=(1, 2), steps=120):
    """Cost, number of handovers and digest of a run under a policy whose every plan is checked."""
    config, core = world(changes, len(seeds))
    policy = agents.make(name, config)
    core.reset(seeds)
    policy.reset(core.view)
    cost, handovers = 0.0, 0
    for _ in range(steps):
        plans = policy.act(core.view)
        assert plans.dtype == PLAN and plans.shape == (len(seeds), config.num_ues)
        target = plans["target"]
        assert np.isin(target, [CONTINUE, CANCEL, *range(core.task.sim.num_cells)]).all()
        assert ((plans["keep"] > 0) & (plans["keep"] <= 1)).all() and np.isin(plans["bits"], (16, 8, 4)).all()
        assert np.isin(plans["medium"], range(4)).all() and (plans["prefix"] >= -1).all()
        assert (np.isfinite(plans["weight"]) & (plans["weight"] >= 0)).all()
        core.step(plans)
        cost -= core.reward.sum()
        handovers += int(core.task.sim.state.flow["handovers"].sum())
    return cost, handovers, core.digest()


@pytest.mark.parametrize("name", EVERY)
def test_every_policy_plays_and_does_the_same_again(name: str) -> None:
    first = play(name)
    assert first == play(name) and first[1] > 3


@pytest.mark.parametrize("name", EVERY)
def test_every_policy_takes_one_ue(name: str) -> None:
    assert play(name, ALONE, seeds=(5,), steps=150)[1] > 0


@pytest.mark.parametrize("name", CATALOGUE.entries)
def test_where_nobody_changes_cell_nothing_is_moved(name: str) -> None:
    _, handovers, _ = play(name, STILL, seeds=(3,), steps=60)
    flow = world(STILL, 1)[1].task.sim.state.flow
    assert handovers == 0
    if name != "random":
        assert not flow["bits_sent"].any() and not flow["gpu_s"].any()


@pytest.mark.parametrize("name", CATALOGUE.entries)
def test_environments_side_by_side_do_not_influence_each_other(name: str) -> None:
    core = world(QUICK, 2)[1]
    play(name, steps=80)
    together = core.task.sim.state.ue[1].copy()
    play(name, seeds=(2,), steps=80)
    assert np.array_equal(together, world(QUICK, 1)[1].task.sim.state.ue[0])


def test_ctho_costs_no_more_than_the_worse_of_its_ends() -> None:
    seeds = tuple(range(20, 28))
    cost = {name: play(name, seeds=seeds, steps=200)[0] for name in ("ctho", "tho", "cho")}
    assert cost["ctho"] <= max(cost["tho"], cost["cho"])


def test_foresight_is_better_than_a_prediction() -> None:
    seeds = tuple(range(20, 28))
    assert play("foresight", seeds=seeds, steps=200)[0] < min(
        play(name, seeds=seeds, steps=200)[0] for name in ("pallas", "greedy-planner"))


@pytest.mark.parametrize("name", EVERY)
def test_a_policy_bears_the_name_that_makes_it(name: str) -> None:
    config = resolve("handover", ["scoring.mode=none"])
    policy = agents.make(name, config)
    assert agents.make(policy.name, config).name == policy.name
    assert policy.name in (name, ALIASES.get(name))


def test_different_arguments_make_different_names() -> None:
    config = resolve("handover", ["scoring.mode=none"])
    given = ["pallas", "pallas:bits=8", "pallas:bits=8,alpha=0.5", "pallas:alpha=0.5", "ctho:bits=4",
             "ctho-per-user:bits=4", "token-aware:keep=0.1", "token-aware:keep=0.1000001", "fetch:medium=kv",
             "constant:medium=kv,keep=0.5,bits=4,when=early", "constant:when=after",
             "constant:when=predicted,backfill=0.25,arrival=resume,repair=True,lead_s=4.0", "deadline:keep=0.5"]
    made = [agents.make(name, config).name for name in given]
    assert made == given
    assert agents.make("pallas:bits=16", config).name == "pallas"


def test_an_alias_takes_further_arguments() -> None:
    config = resolve("handover", ["scoring.mode=none"])
    assert agents.make("token-aware-0.1:bits=8", config).name == "token-aware:keep=0.1,bits=8"
    with pytest.raises(PolicyError, match="keep is given twice"):
        agents.make("token-aware-0.1:keep=0.5", config)


@pytest.mark.parametrize(("name", "says"), [
    ("token-aware:kep=0.1", "did you mean keep"), ("token-aware:keep=much", "must be a number"),
    ("token-aware:keep=0", "keep is 0.0"), ("ctho:bits=5", "bits is 5"), ("ctho:bits=4.5", "a whole number"),
    ("constant:medium=pigeon", "medium is 'pigeon'"), ("constant:when=never", "when is 'never'"),
    ("constant:backfil=1", "did you mean backfill"), ("constant:repair=maybe", "true or false"),
    ("constant:medium=foo", "medium is 'foo': choose among token, kv, split, detour"),
    ("constant:moment=early", "did you mean when"), ("constant:weight=-1", "weight is -1.0"),
    ("constant:backfill=nan", "backfill is nan"), ("constant:arrival=now", "arrival is 'now'"),
    ("ctho:bits", "write ctho:key=value"), ("ctho:", "write ctho:key=value"),
    ("ctho:bits=4,bits=8", "given twice"), ("tho:bits=4", "it takes none"), ("ctho:per_user=1", "no argument"),
    ("palas:bits=8", "did you mean pallas"), ("ctho-int16", "did you mean ctho-int")])
def test_a_bad_name_is_explained(name: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        agents.make(name, resolve("handover", ["scoring.mode=none"]))


def test_the_page_of_policies_is_what_the_code_would_write() -> None:
    docs = Path(__file__).parents[2] / "docs"
    made = runpy.run_path(str(docs / "make_policies.py"))["page"]()
    assert (docs / "policies.md").read_text(encoding="utf-8") == made, "run: python docs/make_policies.py"
    assert all(f"| `{name}` |" in made for name in (*agents.names(), *ALIASES))


def test_policies_work_where_they_decide_the_handovers() -> None:
    changes = (*QUICK, "actions.trigger=policy")
    for name in ("foresight", "pallas", "greedy-planner", "ctho", "fetch"):
        assert play(name, changes, seeds=(1,), steps=80)[1] > 0
