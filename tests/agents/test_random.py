"""The random policy: what an episode's choices depend on, and that all that are allowed are equally likely."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kvroam import agents
from kvroam.agents.random import RandomPolicy
from kvroam.envs import HandoverEgoEnv, HandoverEgoVectorEnv, make_core
from kvroam.envs.handover.config import resolve
from kvroam.envs.sim.streams import POLICY, keys, uniform

CONFIG = resolve({"scoring": {"mode": "none"}, "num_ues": 6, "mobility": {"vehicle_share": 1.0}})


def episodes(seeds, steps=60, policy=None, before=0):
    """Plans of every environment, [E][steps], of a policy that has acted `before` steps of other episodes."""
    core, policy = make_core(CONFIG, len(seeds)), policy or agents.make("random", CONFIG)
    core.reset([1000 + seed for seed in seeds])
    policy.reset(core.view)
    for _ in range(before):
        core.step(policy.act(core.view))
    core.reset(seeds)
    policy.reset(core.view)
    plans = []
    for _ in range(steps):
        plans.append(policy.act(core.view))
        core.step(plans[-1])
    return [np.stack([step[e] for step in plans]) for e in range(len(seeds))]


def test_an_episode_is_the_same_alone_in_a_batch_and_at_another_place_of_it():
    (alone,) = episodes([7])
    assert np.array_equal(alone, episodes([7, 8, 9])[0])
    assert np.array_equal(alone, episodes([8, 9, 7])[2])
    assert np.array_equal(alone, episodes([7], before=25)[0])


def test_two_episodes_two_seeds_and_two_batches_differ():
    first, second = episodes([7, 8])
    assert (first != second).mean() > 0.5
    # What went wrong once: the second batch of an evaluation repeated the draws of the first.
    policy = agents.make("random", CONFIG)
    one, two = episodes([7], policy=policy)[0], episodes([23], policy=policy)[0]
    assert (one != two).mean() > 0.5
    core = make_core(CONFIG, 1)
    core.reset([7])
    begun = policy.act(core.view)
    assert np.array_equal(begun, policy.act(core.view))
    core.reset()  # the next episode of the same seed
    assert not np.array_equal(begun, policy.act(core.view))


def actions(mask: np.ndarray, sizes: list[int], steps: int, seeds=(5,)) -> np.ndarray:
    """Actions [steps, E, agents, parts] under one mask [agents, sum of sizes]."""
    state = SimpleNamespace(keys=np.stack([keys(seed) for seed in seeds]))
    policy = RandomPolicy(sizes, lambda view: np.repeat(mask[None], len(seeds), axis=0), lambda chosen, view: chosen)
    return np.stack([policy.act(SimpleNamespace(  # type: ignore[arg-type]
        time_s=np.full(len(seeds), 0.1 * step), interval_s=0.1, sim=SimpleNamespace(state=state)))
        for step in range(steps)])


def test_allowed_choices_are_equally_likely_and_others_are_never_taken():
    sizes, steps = [5, 3, 1], 4000
    mask = np.array([[1, 0, 1, 1, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 0, 1, 0, 1]], bool)
    chosen = actions(mask, sizes, steps)[:, 0]
    for agent in range(2):
        start = 0
        for part, size in enumerate(sizes):
            allowed = mask[agent, start:start + size]
            share = np.bincount(chosen[:, agent, part], minlength=size) / steps
            # Four standard deviations of a share.
            expected = allowed / allowed.sum()
            assert np.abs(share - expected).max() <= 4.0 * np.sqrt(expected * (1 - expected) / steps).max()
            assert (share[~allowed] == 0.0).all()
            start += size


def test_agents_parts_steps_and_environments_draw_apart():
    sizes, mask = [50] * 3, np.ones((4, 150), bool)
    chosen = actions(mask, sizes, 300, seeds=(5, 6)).reshape(300, -1).astype(float)
    chance = np.corrcoef(chosen.T) - np.eye(chosen.shape[1])
    assert np.abs(chance).max() < 5.0 / np.sqrt(300)
    following = [np.corrcoef(column[1:], column[:-1])[0, 1] for column in chosen.T]
    assert np.abs(following).max() < 5.0 / np.sqrt(300)


def test_a_draw_has_the_address_that_the_streams_say():
    # Half of 2 choices: the draw of UE u, part k, step s is above or below one half.
    chosen = actions(np.ones((3, 4), bool), [2, 2], 20)[:, 0]
    key = keys(5)[POLICY]
    drawn = [[[int(2.0 * uniform(key, u, part, step)) for part in range(2)] for u in range(3)] for step in range(20)]
    assert chosen.tolist() == drawn


@pytest.mark.parametrize("trigger", ["a3", "policy"])
def test_it_makes_use_of_every_part(trigger):
    config = resolve({"scoring": {"mode": "none"}, "num_ues": 6, "actions": {"trigger": trigger}})
    core, policy = make_core(config), agents.make("random", config)
    core.reset([3])
    plans = []
    for _ in range(80):
        plans.append(policy.act(core.view)[0])
        core.step(plans[-1][None])
    every = np.stack(plans)
    # Nothing is forwarded: no detour, and nobody streams on.
    for field, count in (("medium", 3), ("keep", 5), ("bits", 3), ("weight", 4), ("backfill", 4), ("arrival", 2)):
        assert len(np.unique(every[field])) == count
    assert (np.unique(every["handover"]).size > 1) == (trigger == "policy")


def test_an_ego_among_random_others_is_the_same_alone_and_in_a_batch():
    batch, ones = HandoverEgoVectorEnv(2, CONFIG, others="random"), [HandoverEgoEnv(CONFIG, others="random")] * 2
    space, rows = ones[0].action_space, batch.reset(seed=4)[0]
    space.seed(0)
    chosen = [np.stack([space.sample(), space.sample()]) for _ in range(40)]
    together = [rows, *(batch.step(action)[0] for action in chosen)]
    for i, one in enumerate(ones):
        alone = [one.reset(seed=4 + i)[0], *(one.step(action[i])[0] for action in chosen)]
        assert np.array_equal(np.stack(alone), np.stack(together)[:, i])
