"""The papers' figures: what is committed is what the command computes, and the instances are followed independently."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from kvroam.benchmarks.papers import ctho, rows
from kvroam.benchmarks.papers.__main__ import PAPERS, command

DOCS = Path(__file__).parents[2] / "docs" / "papers"


@pytest.mark.parametrize("name", PAPERS)
def test_the_committed_page_says_what_the_committed_points_say(name: str) -> None:
    paper = import_module(f"kvroam.benchmarks.papers.{name.replace('-', '_')}")
    points = rows.from_csv((DOCS / f"{name}.csv").read_text())
    page = (DOCS / f"{name}.md").read_text()
    line = re.search(r"`(python -m kvroam.benchmarks.papers [^`]*)`", page)
    assert line is not None
    assert page == rows.report(paper.TITLE, line[1], points, paper.findings(points), paper.NOTES)
    assert (DOCS / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_committed_points_of_ctho_come_out_again() -> None:
    committed = rows.from_csv((DOCS / "ctho.csv").read_text())
    panel, xs, change = ctho.SWEEPS[3]
    setting = change(ctho.Setting(), xs[-1])
    found = [ctho.delays(setting, *ctho.sample(setting, np.random.default_rng([0, i]))) for i in range(200)]
    for name in ctho.POLICIES:
        mean = np.mean([f[name] for f in found])
        assert rows.at(committed, panel, name, xs[-1]).mean == pytest.approx(mean, rel=1e-5)


def test_cho_and_tho_of_the_figure_are_a_fluid_link_and_one_batch() -> None:
    setting = replace(ctho.Setting(), users=3, backhaul_bps=ctho.KV_BITS * 1000.0, prefill_s_per_token=1e-3,
                      prefill_overhead_s=0.0, cycle_s=0.5)
    found = ctho.delays(setting, np.array([0.0, 0.2, 5.0]), np.array([1000, 2000, 500]))
    # The link serves 0 to 1 s, 1 to 3 s and 5 to 5.5 s; the batch of 2,000 tokens starts at 5 s.
    assert found["cHO"] == pytest.approx(2.8) and found["tHO"] == pytest.approx(7.0)
    assert found["ctHO"] == pytest.approx(2.8)


def test_a_user_that_stays_receives_more_slowly_than_one_that_approaches() -> None:
    assert ctho._receive(100.0, 20.0, 4096) > ctho._receive(100.0, 0.0, 4096) > ctho._receive(100.0, -20.0, 4096)
    # 10 dB at 20 m: 2 MHz * log2(11) / 12 bit, for 1,000,000 tokens.
    assert ctho._receive(20.0, 0.0, 1_000_000) == pytest.approx(12e6 / (2e6 * np.log2(11.0)), abs=2e-3)


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


def test_one_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--samples is 1"):
        command(["ctho", "--samples", "1", "--out", str(tmp_path)])
