"""Hops between gNBs: the Gabriel graph by brute force, paths by another algorithm, and what any distance obeys."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvroam.envs.scenes import available, load
from kvroam.envs.sim.xn import hops, neighbours


def by_hand(sites) -> np.ndarray:
    """The definition in words: no third site nearer to the middle than half the distance; then Floyd and Warshall."""
    count = len(sites)
    distance = np.full((count, count), 10**6)
    for i, j in product(range(count), repeat=2):
        middle = [(a + b) / 2 for a, b in zip(sites[i], sites[j], strict=True)]
        radius = math.dist(sites[i], sites[j]) / 2
        inside = [k for k in range(count) if k not in (i, j) and math.dist(sites[k], middle) < radius * (1 - 1e-7)]
        if not inside:
            distance[i, j] = i != j
    for k, i, j in product(range(count), repeat=3):
        distance[i, j] = min(distance[i, j], distance[i, k] + distance[k, j])
    return distance


@settings(derandomize=True, deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 14), on_grid=st.booleans())
def test_hops_are_those_by_brute_force_and_a_distance(seed, count, on_grid):
    generator = np.random.default_rng(seed)
    # On a coarse grid many sites share a place or lie exactly on circles of others.
    sites = (generator.integers(0, 4, (count, 2)) * 200.0 if on_grid else generator.uniform(-900.0, 900.0, (count, 2)))
    found = hops(sites)
    assert found.dtype == np.int64 and np.array_equal(found, by_hand(sites.tolist()))
    assert (found == found.T).all() and ((found == 0) == np.eye(count, dtype=bool)).all()
    assert found.max() < max(count, 2), "every gNB reaches every other"
    assert (found[:, None, :] <= found[:, :, None] + found[None, :, :]).all()
    assert np.array_equal(found == 1, neighbours(sites))


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_turning_moving_and_scaling_a_network_changes_nothing(seed):
    generator = np.random.default_rng(seed)
    sites, angle = generator.uniform(0.0, 1.0, (11, 2)), generator.uniform(0.0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.array_equal(hops(sites), hops(700.0 * sites @ turn + [3e4, -2e4]))


def test_a_street_of_gnbs_is_a_chain_and_a_square_is_fully_connected():
    street = np.array([[250.0 * k, 0.0] for k in range(5)])
    assert np.array_equal(hops(street), np.abs(np.arange(5)[:, None] - np.arange(5)))
    square = np.array([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.1, 0.1]])
    assert np.array_equal(hops(square), 1 - np.eye(4))


def test_cells_at_one_place_are_one_hop_apart_and_see_the_same_others():
    sites = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [300.0, 0.0], [600.0, 0.0]])
    found = hops(sites)
    assert np.array_equal(found[:3, :3], 1 - np.eye(3))
    assert found[:3, 3].tolist() == [1, 1, 1] and found[:3, 4].tolist() == [2, 2, 2]


@pytest.mark.parametrize("name", available())
def test_the_shipped_scenes_have_some_gnbs_that_are_not_neighbours(name):
    found = hops(load(name).gnb_xyz_m[:, :2])
    assert np.array_equal(found, by_hand(load(name).gnb_xyz_m[:, :2].tolist()))
    assert 2 <= found.max() <= 8


@pytest.mark.parametrize("sites", [np.zeros((0, 2)), np.zeros((3, 3)), np.zeros(4), [[0.0, np.nan]]])
def test_positions_that_are_none_are_refused(sites):
    with pytest.raises(ValueError, match="sites_m"):
        hops(np.asarray(sites))
