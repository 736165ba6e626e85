"""Shared by all tests: one torch thread, and a small world that needs no ray tracing."""

from __future__ import annotations

import importlib.util
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kvroam.envs.base import registry
from kvroam.envs.scenes import DIRECTIONS
from kvroam.experiment import file_class


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


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The miniature, registered as its own environment would be."""
    path = Path(__file__).parent / "envs" / "miniature.py"
    spec = importlib.util.spec_from_file_location("miniature_of_tests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    registry.add("counting", f"{spec.name}:Counting")
    file_class.cache_clear()
    yield module
    file_class.cache_clear()


@pytest.fixture(scope="session")
def made_up() -> Callable[..., dict[str, Any]]:
    """Results of an evaluation that nobody played: made_up(policies, scenarios, kinds) with random numbers."""
    from kvroam.envs.handover.config import TERMS
    from kvroam.evaluation import report
    from kvroam.evaluation.results import summaries

    metrics = ("cost", "avoidable_cost", "interruption_s_mean", "drift_kl_mean", "backhaul_gb", "recall_strict")

    def make(policies: Sequence[str], scenarios: Sequence[str] = ("handover",), episodes: int = 6,
             kinds: Mapping[str, str] | None = None) -> dict[str, Any]:
        rng = np.random.default_rng(3)

        def run(name: str, count: int) -> dict[str, Any]:
            parts = {term.name: (rng.random(count) + 0.05).tolist() for term in TERMS}
            values = {metric: (rng.lognormal(0.0, 1.0, count) + 0.01).tolist() for metric in metrics}
            return {"kind": (kinds or {}).get(name, "heuristic"), "episodes": values | {"floor": [0.01] * count},
                    "parts": parts, "wall_s": 1.0}

        shared = {"format": report.FORMAT, "kvroam": "0", "versions": {"python": "3"}, "machine": {"cpu": "x"},
                  "command": "python evaluate.py"}
        seeds = list(range(episodes))
        found = {scenario: {name: run(name, episodes) for name in policies} for scenario in scenarios}
        parts = {scenario: {"environment": "kvroam/Handover-v0", "config": {"scene": "munich"}, "scoring": "kv",
                            "fingerprint": f"{k:012x}", "seeds": seeds, **summaries(runs, [])}
                 for k, (scenario, runs) in enumerate(found.items())}
        if len(scenarios) == 1:
            return shared | parts[scenarios[0]] | {"scenario": scenarios[0]}
        joined = {name: {"kind": runs[name]["kind"], "wall_s": 1.0} | {
            what: {key: [v for one in found.values() for v in one[name][what][key]] for key in runs[name][what]}
            for what in ("episodes", "parts")} for runs in [found[scenarios[0]]] for name in policies}
        labels = [scenario for scenario in scenarios for _ in seeds]
        return shared | {"config": {}, "scoring": "kv", "seeds": seeds * len(scenarios), "scenarios": labels,
                         **summaries(joined, [], labels), "by_scenario": parts}

    return make


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Two threads on a busy two-core machine were up to 70 times slower."""
    import torch

    torch.set_num_threads(1)
