"""ctHO, figures 3 and 4 (Lee, Park, Zheng, Park, arXiv 2603.28018), with the paper's parameters.

What the paper does not state is ours and a field of `Setting`: the longest context of the sweeps that do not vary it,
and in figure 4 that a UE without handover goes on receiving from its old base station. `WIDE` differs from the stated
positions, was fitted to the paper's values, and so reproduces what the stated ones do not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kvroam.agents.handover.ctho import solve
from kvroam.benchmarks.papers.rows import Finding, Point, at, curves, point

TITLE = "ctHO: joint KV-cache transfer and token prefill (arXiv 2603.28018)"
KV_BITS = 2 * 28 * 4 * 128 * 16  # Qwen2.5-7B-Instruct at 16 bit
POLICIES = ("ctHO", "tHO", "cHO")
DELAY = "worst user's delay [s]"


@dataclass(frozen=True)
class Setting:
    """Section V of the paper."""

    users: int = 4  # K
    shortest: int = 1024  # tokens
    longest: int = 5120  # C_max [tokens]; ours: the paper's value of cHO at K = 12 implies about this
    backhaul_bps: float = 4.5e9
    prefill_s_per_token: float = 9.4267e-5  # a
    prefill_overhead_s: float = 2.4e-3  # b
    cycle_s: float = 0.01  # T_c
    speed_mps: float = 20.0
    spread_m: float = 10.0  # x_i(0) ~ U[120, 130]: the handovers at 150 m fall within spread / speed seconds


# Handovers within .9 s instead of .5 s, and the longest context that then gives cHO its value at K = 12.
WIDE = Setting(spread_m=18.0, longest=5600)


def sample(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Handover times [s] and contexts [tokens] of one group of users."""
    tau = np.sort(rng.uniform(0.0, setting.spread_m, setting.users)) / setting.speed_mps
    return tau, rng.integers(setting.shortest, setting.longest + 1, setting.users)


def delays(setting: Setting, tau: np.ndarray, context: np.ndarray) -> dict[str, float]:
    """The worst user's delay under each policy [s]; tHO and cHO by following the batch and the link themselves."""
    rate = setting.backhaul_bps / KV_BITS
    best = solve(tau, context, backhaul_tokens_per_s=rate, prefill_s_per_token=setting.prefill_s_per_token,
                 prefill_overhead_s=setting.prefill_overhead_s, cycle_s=setting.cycle_s)
    start = math.ceil(tau[-1] / setting.cycle_s) * setting.cycle_s
    prefilled = start + setting.prefill_s_per_token * context.max() + setting.prefill_overhead_s - tau[0]
    free, sent = 0.0, 0.0
    for arrival, tokens in zip(tau, context, strict=True):
        free = max(free, arrival) + tokens / rate
        sent = max(sent, free - arrival)
    return {"ctHO": best.delay_s, "tHO": float(prefilled), "cHO": float(sent)}


SWEEPS: tuple[tuple[str, tuple[float, ...], Callable[[Setting, float], Setting]], ...] = (
    ("backhaul [Gbit/s]", (1, 2, 3, 4, 5, 6, 8, 10, 15), lambda s, x: replace(s, backhaul_bps=x * 1e9)),
    ("prefill speed [thousand tokens/s]", (1, 2, 4, 6, 8, 10.6, 15, 20),
     lambda s, x: replace(s, prefill_s_per_token=1e-3 / x)),
    ("longest context [thousand tokens]", (2, 4, 6, 8, 12, 16), lambda s, x: replace(s, longest=int(1000 * x))),
    ("users", (1, 2, 4, 6, 8, 10, 12), lambda s, x: replace(s, users=int(x))),
)
WIDE_SWEEPS = tuple((f"{panel}, wide", xs, change) for panel, xs, change in (SWEEPS[0], SWEEPS[3]))
DISTANCE = "distance of the base stations [m]"
DISTANCES = (250.0, 300.0, 350.0, 375.0, 400.0, 450.0, 500.0)
FINISH = "last token after the handover [s]"


def run(samples: int, seed: int, tick: Callable[[], object]) -> list[Point]:
    """All points of figures 3 and 4; `tick` is called after each."""
    points = []
    for sweeps, base in ((SWEEPS, Setting()), (WIDE_SWEEPS, WIDE)):
        for panel, xs, change in sweeps:
            for x in xs:
                setting = change(base, x)
                found = [delays(setting, *sample(setting, np.random.default_rng([seed, i]))) for i in range(samples)]
                points += [point(panel, x, name, DELAY, [f[name] for f in found]) for name in POLICIES]
                tick()
    for panel, base in ((DISTANCE, Setting()), (f"{DISTANCE}, wide", WIDE)):
        for distance in DISTANCES:
            found = [finish(base, distance, np.random.default_rng([seed, i])) for i in range(samples)]
            points += [point(panel, distance, name, FINISH, [f[name] for f in found])
                       for name in (*POLICIES, "no handover")]
            tick()
    return points


def finish(setting: Setting, distance_m: float, rng: np.random.Generator, tokens: int = 1024) -> dict[str, float]:
    """Figure 4: seconds from the handover, half way, until the last of `tokens` further tokens has arrived.

    The worst user stands still in the air for its delay and is then served by the new base station, which it
    approaches; without handover it goes on with the old one. Rates of the paper: W log2(1 + SNR) / 12 bit, W = 2 MHz,
    SNR = 10 dB at 20 m with exponent 3.5.
    """
    tau, context = sample(setting, rng)
    found = {name: delay + _receive(distance_m / 2 - setting.speed_mps * delay, -setting.speed_mps, tokens)
             for name, delay in delays(setting, tau, context).items()}
    return found | {"no handover": _receive(distance_m / 2, setting.speed_mps, tokens)}


def _receive(start_m: float, speed_mps: float, tokens: int, step_s: float = 1e-3) -> float:
    """Seconds until `tokens` have arrived at a UE that starts at `start_m` from its base station."""
    time = np.arange(0.0, 120.0, step_s)
    away = np.maximum(np.abs(start_m + speed_mps * time), 1.0)
    snr = 10.0 * (20.0 / away) ** 3.5
    arrived = np.cumsum(2e6 * np.log2(1.0 + snr) / 12.0) * step_s
    return float(time[min(int(np.searchsorted(arrived, tokens)), len(time) - 1)])


def draw(points: list[Point], path: Path) -> None:
    """The figure."""
    curves(points, path, TITLE)


def findings(points: list[Point]) -> list[Finding]:
    """The paper's statements, with its stated positions and with the wider spread."""
    speed = SWEEPS[1][0]
    slow = max((_ratio(points, speed, "tHO", x), x) for x in SWEEPS[1][1])
    always = all(at(points, panel, "ctHO", x).mean <= min(at(points, panel, name, x).mean for name in ("tHO", "cHO"))
                 for panel, xs, _ in SWEEPS for x in xs)
    found = [
        Finding("ctHO is never worse than tHO or cHO", "by construction", "at every point" if always else "not always",
                always),
        Finding("ctHO against tHO over prefill speeds", "up to 3.7x lower",
                f"{slow[0]:.1f}x lower at {slow[1]:g} thousand tokens/s", slow[0] >= 3.7,
                "the range of speeds is not public; the ratio grows as prefill slows down, and 3.7 lies within"),
    ]
    for suffix, label in (("", ""), (", wide", " (wide)")):
        backhaul, users, distance = (f"{panel}{suffix}" for panel in (SWEEPS[0][0], SWEEPS[3][0], DISTANCE))
        cho = _ratio(points, backhaul, "cHO", 2)
        twelve = {name: at(points, users, name, 12).mean for name in POLICIES}
        gap = {d: at(points, distance, "no handover", d).mean - at(points, distance, "ctHO", d).mean for d in DISTANCES}
        crossing, few, many = _crossing(gap), _ratio(points, users, "cHO", 2), _ratio(points, users, "cHO", 12)
        found += [
            Finding(f"ctHO against cHO at 2 Gbit/s{label}", "up to 3.1x lower", f"{cho:.1f}x lower",
                    abs(cho / 3.1 - 1) < 0.1),
            Finding(f"order for 12 users{label}", "ctHO < tHO < cHO",
                    " < ".join(sorted(twelve, key=twelve.__getitem__)), twelve["ctHO"] < twelve["tHO"] < twelve["cHO"]),
            Finding(f"ctHO, tHO, cHO for 12 users{label}", "0.95, 1.25, 3.35 s",
                    ", ".join(f"{twelve[n]:.2f}" for n in POLICIES) + " s",
                    all(abs(twelve[n] / v - 1) < 0.1 for n, v in zip(POLICIES, (0.95, 1.25, 3.35), strict=True)),
                    "" if suffix else "the stated positions and speed put all handovers within .5 s; a batch that "
                    "starts after the last of them ends at 1.25 s only if they are further apart (see wide)"),
            Finding(f"cHO loses more the more users there are{label}", "yes", f"{few:.1f}x at 2, {many:.1f}x at 12",
                    many > few),
            Finding(f"not handing over is better below{label}", "375 m", f"{crossing:.0f} m",
                    abs(crossing - 375) < 37.5),
            Finding(f"not handing over at 500 m{label}", "over 2.1 s worse", f"{gap[500.0]:.1f} s worse",
                    gap[500.0] > 2.1),
        ]
    return found


def _ratio(points: list[Point], panel: str, curve: str, x: float) -> float:
    return at(points, panel, curve, x).mean / at(points, panel, "ctHO", x).mean


def _crossing(gap: dict[float, float]) -> float:
    """Where a function given at points changes from negative to positive, by linear interpolation; NaN: nowhere."""
    pairs = list(gap.items())
    for (x0, y0), (x1, y1) in itertools.pairwise(pairs):
        if y0 < 0 <= y1:
            return x0 + (x1 - x0) * -y0 / (y1 - y0)
    return math.nan


NOTES = """
Assumed by us: contexts of at most 5,120 tokens where the paper varies something else; in figure 4, that a user without
handover goes on receiving from its old base station, and that the handover happens half way. "Wide" is fitted:
handovers within .9 s and contexts of at most 5,600 tokens were picked from 16 combinations of the two for coming close
to the paper's own values. Its agreement shows that one spread explains all of them, and is no independent test.
"""
STEPS = sum(len(xs) for _, xs, _ in (*SWEEPS, *WIDE_SWEEPS)) + 2 * len(DISTANCES)
