"""Two choices: affinity against load, and what is fetched."""

from __future__ import annotations

import numpy as np
import pytest

from kvroam.agents.handover.two_choices import TwoChoices, placement_cost
from kvroam.envs.handover.view import NetworkView
from kvroam.envs.handover.world.state import DETOUR, KV, SPLIT

from ..envs.sim_bench import Bench


def decisions(city, phy, policy, busy_cell, ues=6):
    """Plans when UE 0 was left behind at cell 0 and is at cell 1, and all others live at `busy_cell`."""
    bench = Bench(city, phy, ues=ues)
    bench.put(0, radio=1, server=0, context=2000.0)
    for u in range(1, ues):
        bench.put(u, radio=busy_cell)
    return policy.act(NetworkView(bench.sim, 3))[0]


def test_a_session_that_was_left_behind_follows_to_the_emptier_server(city, phy):
    policy = TwoChoices(load_weight=1.0)
    here, crowded = decisions(city, phy, policy, 0), decisions(city, phy, policy, 1)
    assert (here["target"][0], here["medium"][0]) == (1, SPLIT)
    assert (crowded["target"][0], crowded["medium"][0]) == (-1, DETOUR)
    assert (here["target"][1:] == -1).all() and (here["medium"][1:] == DETOUR).all()


def test_affinity_alone_decides_without_load(city, phy):
    assert decisions(city, phy, TwoChoices(load_weight=0.0), 1)["target"][0] == 1
    assert decisions(city, phy, TwoChoices(load_weight=0.0, ahead_answers=1.0), 1)["target"][0] == -1


def test_the_slower_medium_moves_later(city, phy):
    # 2000 tokens: 0.2 s by prefill, 0.92 s by KV over 1 Gbit/s; the detour of 25 tokens adds 0.5 s.
    by = {m: decisions(city, phy, TwoChoices(m, load_weight=0.0, ahead_answers=25.0), 5)["target"][0]
          for m in ("token", "kv", "split")}
    assert by == {"token": 1, "kv": -1, "split": 1}


@pytest.mark.parametrize(("busy_cell", "goes"), [(8, False), (0, True)])
def test_a_session_does_not_crowd_itself(city, phy, busy_cell, goes):
    # 0.202 s to move 2000 tokens, 0.1 s of detour: alone it stays; beside one other session that costs 0.5 s it goes.
    policy = TwoChoices("token", load_weight=0.5, ahead_answers=5.0)
    assert (decisions(city, phy, policy, busy_cell, ues=2)["target"][0] == 1) == goes


def test_what_the_link_owes_and_a_full_server_keep_a_session_where_it_is(city, phy):
    def target(prepare):
        bench = Bench(city, phy, ues=2)
        bench.put(0, radio=1, server=0, context=2000.0)
        prepare(bench)
        return TwoChoices("kv", load_weight=0.0, ahead_answers=50.0).act(NetworkView(bench.sim, 3))[0]["target"][0]

    def owe(bench):
        # 9000 tokens from cell 0 to cell 2: 4.1 s on the link that the session would take.
        bench.put(1, context=9000.0)
        bench.plan(1, target=2, medium=KV)
        bench.step()

    def fill(bench):
        bench.cell[1]["memory_bytes"] = 0.0

    # 0.92 s to move, 1 s of detour.
    assert [target(lambda bench: None), target(owe), target(fill)] == [1, -1, -1]


def test_the_cost_is_a_sum():
    assert placement_cost([0, 2], 0.5, 0.25, 1.0, 0.1) == pytest.approx([1.75, 1.95])


@pytest.mark.parametrize(("fields", "says"), [
    (dict(medium="detour"), "medium is 'detour'"), (dict(bits=2), "bits is 2"),
    (dict(load_weight=-1.0), "load_weight is -1.0"), (dict(ahead_answers=np.inf), "ahead_answers is inf")])
def test_a_policy_that_cannot_be_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        TwoChoices(**fields)
