"""The papers' figures: the pages say what the points say, verdicts keep to the tolerances, worlds to equations."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from kvroam.benchmarks.papers import ctho, pallas, rows, token_aware
from kvroam.benchmarks.papers.__main__ import PAPERS, command
from kvroam.benchmarks.papers.rows import AGREES, DIFFERS, UNCHECKED, Point
from kvroam.benchmarks.papers.summary import summarise
from kvroam.kvbackend.scorers.table import SCORERS

DOCS = Path(__file__).parents[2] / "docs" / "papers"


def committed(name: str) -> list[Point]:
    return rows.from_csv((DOCS / f"{name}.csv").read_text())


def module(name: str):
    return import_module(f"kvroam.benchmarks.papers.{name.replace('-', '_')}")


@pytest.mark.parametrize("name", PAPERS)
def test_the_committed_page_says_what_the_committed_points_say(name: str) -> None:
    paper, points = module(name), committed(name)
    page = (DOCS / f"{name}.md").read_text()
    line = re.search(r"`(python -m kvroam.benchmarks.papers [^`]*)`", page)
    assert line is not None
    assert page == rows.report(paper.TITLE, line[1], points, paper.findings(points), paper.remarks(points),
                               paper.tables(points), paper.NOTES)
    assert (DOCS / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", PAPERS)
def test_every_verdict_has_a_tolerance_and_every_other_one_than_agrees_a_reason(name: str) -> None:
    for found in module(name).findings(committed(name)):
        assert found.verdict in (AGREES, DIFFERS, UNCHECKED) and found.tolerance
        assert found.verdict == AGREES or found.why, found.claim


@pytest.mark.parametrize("name", PAPERS)
def test_random_points_rest_on_16_instances_at_least(name: str) -> None:
    for found in committed(name):
        # Two quantities are one number by nature: the largest deviation, and a delay that is the same in all instances.
        assert found.samples >= 16 or found.low == found.high == found.mean


def test_the_committed_summary_lists_every_verdict(tmp_path: Path) -> None:
    for name in PAPERS:
        (tmp_path / f"{name}.csv").write_text((DOCS / f"{name}.csv").read_text())
    assert summarise(tmp_path, PAPERS).read_text() == (DOCS / "README.md").read_text()


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (2.8, 3.4, AGREES), (2.79, 3.41, AGREES), (2.7, 3.0, UNCHECKED), (3.3, 3.5, UNCHECKED), (2.0, 4.0, UNCHECKED),
    (3.42, 9.0, DIFFERS), (1.0, 2.7, DIFFERS), (np.nan, np.nan, UNCHECKED),
])
def test_a_verdict_asks_for_the_whole_interval(low: float, high: float, verdict: str) -> None:
    assert rows.judge(low, high, 2.79, 3.41) == verdict


def test_a_published_range_is_widened_at_both_ends_and_one_setting_apart_from_it_differs() -> None:
    def factor(low: float, high: float) -> Point:
        return Point("", 0.0, "ctHO", pallas.TIMES, (low + high) / 2, low, high, 16)

    inside, across, outside = factor(2.1, 7.4), factor(7.0, 8.0), factor(8.0, 9.0)
    assert pallas._range("", "ctHO", [inside, inside]).verdict == AGREES
    assert pallas._range("", "ctHO", [inside, across]).verdict == UNCHECKED
    assert pallas._range("", "ctHO", [inside, across, outside]).verdict == DIFFERS


def test_committed_points_of_ctho_come_out_again() -> None:
    panel, xs, change = ctho.SWEEPS[3]
    setting = change(ctho.Setting(), xs[-1])
    rig, points = ctho.world(setting), committed("ctho")
    samples = rows.at(points, panel, "cHO", 12, ctho.DELAY).samples
    found = [ctho.delays(setting, rig, np.random.default_rng([0, i])) for i in range(samples)]
    for name in ctho.POLICIES:
        mean = np.mean([f[name] for f in found])
        assert rows.at(points, panel, name, xs[-1], ctho.DELAY).mean == pytest.approx(mean, rel=1e-5)
    assert max(f[ctho.ERROR] for f in found) < 0.01


def test_the_equations_of_ctho_are_a_fluid_link_and_one_batch() -> None:
    setting = replace(ctho.Setting(), users=3, backhaul_bps=ctho.KV_BITS * 1000.0, prefill_s_per_token=1e-3,
                      prefill_overhead_s=0.0, cycle_s=0.5)
    tau, context = np.array([0.0, 0.2, 5.0]), np.array([1000, 2000, 500])
    # The link serves 0 to 1 s, 1 to 3 s and 5 to 5.5 s; the batch of 2,000 tokens starts at 5 s.
    assert ctho.equations(setting, tau, context, 0) == pytest.approx(2.8)
    assert ctho.equations(setting, tau, context, 2000) == pytest.approx(7.0)
    # 1,000 tokens rebuilt by 6 s; 1,000 more of the second session sent from .2 to 1.2 s.
    assert ctho.equations(setting, tau, context, 1000) == pytest.approx(6.0)
    rig = ctho.world(setting)
    for prefix, delay in ((0, 2.8), (2000, 7.0), (1000, 6.0)):
        assert ctho.played(rig, tau, context, prefix) == pytest.approx(delay, rel=1e-4)


def test_a_user_that_stays_receives_more_slowly_than_one_that_approaches() -> None:
    assert ctho.receive(100.0, 20.0, 4096) > ctho.receive(100.0, 0.0, 4096) > ctho.receive(100.0, -20.0, 4096)
    # 10 dB at 20 m: 2 MHz * log2(11) / 12 bit, for 1,000,000 tokens.
    assert ctho.receive(20.0, 0.0, 1_000_000) == pytest.approx(12e6 / (2e6 * np.log2(11.0)), abs=2e-3)


@pytest.mark.parametrize("model", pallas.MODELS)
def test_one_session_of_the_pallas_world_takes_what_arithmetic_says(model: pallas.Model) -> None:
    setting = pallas.Setting(model, backhaul_bps=5e8, context=1500.0, error_s=0.0)
    street = pallas.Street(setting)
    serving, rng = street.serving, np.random.default_rng(3)
    found = {name: cut for name, (cut, _) in street.sample(rng).items()}
    context = np.round(1500.0 * np.random.default_rng(3).uniform(0.9, 1.1))
    first_s = 1.0 / serving.decode_tokens_per_s
    prefill_s = context * serving.prefill_s_per_token + np.ceil(context / 256) * serving.prefill_overhead_s
    copy_s = context * serving.kv_bits_per_token(16) / 5e8
    assert found["recompute"] == pytest.approx(prefill_s + first_s, rel=1e-3)
    assert found["full copy"] == pytest.approx(copy_s + context * serving.kv_bits_per_token(16) / 8 / 20e9
                                               + context * 1e-6 + first_s, rel=1e-3)
    # Two servers that work at once: 1 / (1 / prefill + 1 / copy).
    assert found["ctHO"] == pytest.approx(1 / (1 / prefill_s + 1 / copy_s) + first_s, rel=0.02)
    assert found["Pallas"] == pytest.approx(pallas.RADIO_S + first_s, rel=0.05)


def test_the_ranking_costs_of_the_token_aware_page_are_those_of_the_scorers() -> None:
    for scorer, (_, cost) in token_aware.SCORERS.items():
        assert SCORERS[scorer]().prefill_per_token == cost


def test_points_survive_the_csv() -> None:
    points = [rows.point("users", 4, "a", "delay [s]", [1.0, 2.0, np.nan]),
              rows.point("users", 8, "a", "delay [s]", [3, 3])]
    again = rows.from_csv(rows.to_csv(points))
    assert rows.to_csv(again) == rows.to_csv(points) and again[0].samples == 2 and again[0].mean == 1.5
    assert again[0].low == pytest.approx(1.5 - 6.3531, abs=1e-4), "Student's t of two values"
    assert again[1].low == again[1].high == 3.0, "no band where nothing differs"
    assert rows.at(again, "users", "a").x == 8
    with pytest.raises(KeyError, match="no point of 'b'"):
        rows.at(again, "users", "b")


def test_a_ratio_is_taken_pair_by_pair() -> None:
    found = rows.ratio("users", 4, "a", "times", [2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found.mean == found.low == found.high == pytest.approx(2.0)


def test_one_sample_and_an_unknown_paper_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--samples is 1"):
        command(["ctho", "--samples", "1", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match="paper 'pallass' is unknown"):
        command(["pallass", "--out", str(tmp_path)])
