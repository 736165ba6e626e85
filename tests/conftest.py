"""Shared by all tests: one torch thread, and a small world that needs no ray tracing."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest

from kvroam.envs.scenes import DIRECTIONS


def grid_city(blocks: int = 5, pitch_m: float = 5.0) -> SimpleNamespace:
    """A Manhattan grid of streets every 100 m, nine gNBs, path loss 32.4 + 21 log10(d) + 20 log10(3.5) (UMi LoS)."""
    size = blocks * 20 + 1
    y, x = np.mgrid[0:size, 0:size] * pitch_m
    gnbs = np.array([(a, b) for b in (0.2, 0.5, 0.8) for a in (0.2, 0.5, 0.8)]) * size * pitch_m
    distance = np.hypot(x[None] - gnbs[:, 0, None, None], y[None] - gnbs[:, 1, None, None])
    gain = -(32.4 + 21 * np.log10(np.maximum(distance, 10.0)) + 20 * np.log10(3.5))
    street = (y % 100 < pitch_m) | (x % 100 < pitch_m)
    destinations = np.array([(r, c) for r in range(0, size, 20) for c in range(0, size, 20)], np.int16)
    fields = np.full((len(destinations), size, size), 255, np.uint8)
    for field, (row, col) in zip(fields, destinations, strict=True):
        field[row, col] = 8
        queue = deque([(int(row), int(col))])
        while queue:
            r, c = queue.popleft()
            for k in (0, 2, 4, 6):
                a, b = r - DIRECTIONS[k][0], c - DIRECTIONS[k][1]
                if 0 <= a < size and 0 <= b < size and street[a, b] and field[a, b] == 255:
                    field[a, b] = k
                    queue.append((a, b))
    return SimpleNamespace(
        path_gain_db=gain.astype(np.float32), street=street, destinations=destinations, next_direction=fields,
        origin_m=(0.0, 0.0), cell_size_m=pitch_m, gnb_xyz_m=gnbs, name="grid",
    )


@pytest.fixture(scope="session")
def city() -> SimpleNamespace:
    """The grid city."""
    return grid_city()


@pytest.fixture(scope="session")
def phy() -> SimpleNamespace:
    """A Shannon-like link curve."""
    sinr = np.arange(-10.0, 30.05, 0.1)
    return SimpleNamespace(sinr_db=sinr, efficiency=np.clip(0.7 * np.log2(1 + 10 ** (sinr / 10)) - 0.2, 0.0, 5.5))


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Two threads on a busy two-core machine were up to 70 times slower."""
    import torch

    torch.set_num_threads(1)
