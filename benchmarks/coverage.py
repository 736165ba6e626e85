"""How often intervals hold the truth: `python -m kvroam.benchmarks.coverage [--play SCENARIO ...]`.

Samples are drawn from populations shaped like what evaluations measure, whose means are known, and every interval that
is asked for is tried on each. With `--play`, the populations are the metrics of episodes that are really played.
docs/statistics.md shows the tables.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from kvroam import commands
from kvroam.envs.base.declare import markdown
from kvroam.envs.base.registry import task
from kvroam.errors import ConfigError
from kvroam.evaluation.estimates import iqm_interval, mean_interval, paired_difference, paired_ratio
from kvroam.evaluation.results import evaluate
from kvroam.experiment import load_experiment

LEVEL = 0.95
SIZES = (8, 16, 32, 64)  # episodes
POLICIES = ("tho", "ctho", "pallas", "constant:bits=4,when=early", "token-aware")

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
DrawPair = Callable[[np.random.Generator, tuple[int, int]], tuple[np.ndarray, np.ndarray]]
Ends = tuple[np.ndarray, np.ndarray]


def lognormal(sigma: float) -> Draw:
    """Costs and waiting times: positive, with a long tail; the spread of the logarithm is `sigma`."""
    return lambda rng, shape: rng.lognormal(0.0, sigma, shape)


def pair(world: float, own_a: float, own_b: float) -> DrawPair:
    """Costs of two policies: the world of a seed makes both dear or cheap, and each has luck of its own.

    Args:
        world, own_a, own_b: spreads of the logarithms.
    """

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        shared = rng.lognormal(0.0, world, shape)
        return 1.4 * shared * rng.lognormal(0.0, own_a, shape), shared * rng.lognormal(0.0, own_b, shape)

    return draw


SINGLES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(0.0, 1.0, shape),
    "cost, log-normal 0.4": lognormal(0.4),
    "cost, log-normal 0.6": lognormal(0.6),
    "cost, log-normal 0.8": lognormal(0.8),
    "cost, log-normal 1": lognormal(1.0),
    "share, beta(9, 1)": lambda rng, shape: rng.beta(9.0, 1.0, shape),
    "share of 40, 90 %": lambda rng, shape: rng.binomial(40, rng.beta(18.0, 2.0, shape)) / 40.0,
    "count, mean 30": lambda rng, shape: rng.poisson(rng.gamma(8.0, 30.0 / 8.0, shape)).astype(float),
    "count, mean 1": lambda rng, shape: rng.poisson(1.0, shape).astype(float),
}
PAIRS: dict[str, DrawPair] = {
    "world 0.4, own 0.15 and 0.15": pair(0.4, 0.15, 0.15),
    "world 0.4, own 0.4 and 0.2": pair(0.4, 0.4, 0.2),
    "world 0.8, own 0.5 and 0.3": pair(0.8, 0.5, 0.3),
    "world 0.3, own 1 and 0.3": pair(0.3, 1.0, 0.3),
    "world 0, own 0.6 and 0.6": pair(0.0, 0.6, 0.6),
}


def held(ends: Ends, truth: float) -> float:
    """Share of the intervals with known ends that hold the truth; NaN where fewer than half have any."""
    low, high = ends
    known = ~np.isnan(low)
    return float(((low <= truth) & (truth <= high))[known].mean()) if known.mean() >= 0.5 else math.nan


def each(interval: Callable[..., Any], *samples: np.ndarray) -> Ends:
    """The ends of an interval for every row of samples [repeats, n]."""
    found = [interval(*row) for row in zip(*samples, strict=True)]
    return np.array([one.low for one in found]), np.array([one.high for one in found])


def student(x: np.ndarray) -> Ends:
    """Student's t for the means of samples [repeats, n]."""
    n = x.shape[1]
    arm = stats.t.ppf((1 + LEVEL) / 2, n - 1) * x.std(axis=1, ddof=1) / math.sqrt(n)
    return x.mean(axis=1) - arm, x.mean(axis=1) + arm


def bootstraps(x: np.ndarray, rng: np.random.Generator, resamples: int = 599, rows: int = 250) -> tuple[Ends, Ends]:
    """Percentile and BCa bootstrap of the means of samples [repeats, n], `rows` of them at a time."""
    parts: list[list[np.ndarray]] = [[], []]
    for first in range(0, len(x), rows):
        found = None
        for method, part in zip(("percentile", "BCa"), parts, strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of samples without any spread: their ends are NaN
                found = stats.bootstrap((x[first:first + rows],), np.mean, axis=-1, vectorized=True, method=method,
                                        confidence_level=LEVEL, n_resamples=0 if found else resamples,
                                        bootstrap_result=found, rng=rng)
            part.append(np.array(found.confidence_interval))
    percentile, bca = (np.concatenate(part, axis=1) for part in parts)
    return (percentile[0], percentile[1]), (bca[0], bca[1])


def fieller(a: np.ndarray, b: np.ndarray) -> Ends:
    """Fieller's interval of the ratio of means of samples [repeats, n]; infinite where b's mean may be 0.

    Source: Fieller, "Some problems in interval estimation", J. R. Statist. Soc. B 16 (1954), 175-185.
    """
    n = a.shape[1]
    t2 = stats.t.ppf((1 + LEVEL) / 2, n - 1) ** 2 / n
    mean_a, mean_b = a.mean(axis=1), b.mean(axis=1)
    both = ((a - mean_a[:, None]) * (b - mean_b[:, None])).sum(axis=1) / (n - 1)
    square = mean_b**2 - t2 * b.var(axis=1, ddof=1)
    middle = mean_a * mean_b - t2 * both
    root = np.sqrt(np.maximum(middle**2 - square * (mean_a**2 - t2 * a.var(axis=1, ddof=1)), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.where(square > 0, (middle - root) / square, -np.inf),
                np.where(square > 0, (middle + root) / square, np.inf))


def truths(values: np.ndarray) -> tuple[float, float]:
    """Mean and interquartile mean of a population of which `values` are so many that chance does not matter."""
    ordered, quarter = np.sort(values), len(values) // 4
    return float(values.mean()), float(ordered[quarter:-quarter].mean())


def of_means(repeats: int, seed: int) -> list[tuple[object, ...]]:
    """Rows of the first table: population, n, and the coverage of every interval of a mean, and of the IQM's."""
    rows = []
    for name, draw in SINGLES.items():
        mean, iqm = truths(draw(np.random.default_rng([seed, 1]), (1, 2_000_000))[0])
        for n in SIZES:
            rng = np.random.default_rng([seed, n])
            x = draw(rng, (repeats, n))
            percentile, bca = bootstraps(x, rng)
            found = (held(percentile, mean), held(bca, mean), held(student(x), mean),
                     held(each(mean_interval, x), mean), held(each(iqm_interval, x), iqm))
            rows.append((name, n, *map(percent, found)))
    return rows


def of_pairs(repeats: int, seed: int) -> list[tuple[object, ...]]:
    """Rows of the second table: population, n, and the coverage for the paired difference, its IQM, and the ratio."""
    rows = []
    for name, draw in PAIRS.items():
        many, others = (x[0] for x in draw(np.random.default_rng([seed, 1]), (1, 2_000_000)))
        (mean, iqm), ratio = truths(many - others), many.mean() / others.mean()
        for n in SIZES:
            a, b = draw(np.random.default_rng([seed, n]), (repeats, n))
            differences = [paired_difference(*row) for row in zip(a, b, strict=True)]
            of = {key: np.array([getattr(d, key) for d in differences]) for key in differences[0]._fields}
            found = (held(student(a - b), mean), held((of["ci_low"], of["ci_high"]), mean),
                     held((of["iqm_low"], of["iqm_high"]), iqm), held(fieller(a, b), ratio),
                     held(each(paired_ratio, a, b), ratio))
            rows.append((name, n, *map(percent, found)))
    return rows


def of_metrics(played: Mapping[str, Mapping[str, Any]], repeats: int, seed: int) -> list[tuple[object, ...]]:
    """Rows of the third table: metric, and the lowest coverage of its mean over all scenarios and policies.

    Args:
        played: {scenario: results}; what each policy's episodes measured is the population that is drawn from.
        repeats, seed: of the draws.
    """
    known = {m.name: m for results in played.values() for m in task(results["config"]["task"]).metrics}
    rows: list[tuple[object, ...]] = []
    for name, m in known.items():
        lowest = dict.fromkeys(SIZES, (math.inf, ""))
        for scenario, results in played.items():
            for policy, run in results["policies"].items():
                values = np.asarray(run["episodes"].get(name, ()), float)
                values = values[~np.isnan(values)]
                # A population of a few values, or of one, says nothing about intervals.
                if len(values) < max(SIZES) or np.ptp(values) == 0:
                    continue
                for n in SIZES:
                    x = np.random.default_rng([seed, n]).choice(values, (repeats, n))
                    lowest[n] = min(lowest[n], (held(each(mean_interval, x), values.mean()), f"{policy}, {scenario}"))
        if lowest[SIZES[0]][1]:
            shown = "always" if m.interval_from <= 2 else "never" if math.isinf(m.interval_from) else m.interval_from
            where = min(lowest[n] for n in SIZES if n >= 16)[1]
            rows.append((f"`{name}`", *(percent(lowest[n][0]) for n in SIZES), where, shown))
    return rows


def percent(share: float) -> str:
    """A share as a percentage, "-" for NaN."""
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def tables(repeats: int, seed: int) -> Iterable[str]:
    """The tables of the populations that are drawn, in Markdown."""
    yield "How many of 100 intervals of a mean hold it, and the same for the interquartile mean (IQM):\n"
    heads = ("population", "n", "percentile", "BCa", "Student t", "kvroam", "kvroam, IQM")
    yield markdown(heads, of_means(repeats, seed))
    yield "The same for two policies on the same seeds (spreads of the logarithms):\n"
    yield markdown(("population", "n", "difference: Student t", "difference: kvroam", "IQM of it: kvroam",
                    "ratio: Fieller", "ratio: kvroam"), of_pairs(repeats, seed))


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--repeats", type=int, default=2000, help="samples per population and n (default: %(default)s)")
    parser.add_argument("--play", nargs="+", default=[], metavar="SCENARIO",
                        help="draw from the metrics of these scenarios' episodes instead")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), metavar="NAME",
                        help="who plays them (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=512, help="how many of each (default: %(default)s)")
    commands.add_seed(parser)
    commands.add_set(parser)


def execute(args: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    if args.repeats < 1:
        raise ConfigError(f"--repeats is {args.repeats}: at least 1 is needed")
    if args.play and args.episodes < max(SIZES):
        raise ConfigError(f"--episodes is {args.episodes}: at least {max(SIZES)} are needed to draw from")
    if args.play:
        played = play(args.play, args.policies, args.episodes, args.seed, args.overrides)
        heads = ("metric", *(f"n = {n}" for n in SIZES), "lowest from n = 16 on", "shown from n")
        print(markdown(heads, of_metrics(played, args.repeats, args.seed)), end="")
        return
    for part in tables(args.repeats, args.seed):
        print(part)


def play(names: Sequence[str], policies: Sequence[str], episodes: int, seed: int,
         overrides: Sequence[str]) -> dict[str, Any]:
    """The results of evaluating the policies in each scenario, by its name."""
    return {name: evaluate(load_experiment(name, overrides), policies, episodes, seed) for name in names}


command = commands.Command("python -m kvroam.benchmarks.coverage", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())
