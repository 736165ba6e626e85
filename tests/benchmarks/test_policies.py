"""The timing of policies: what is measured and what is written; no time is asserted."""

from __future__ import annotations

import json

import pytest

from kvroam.benchmarks import policies


def test_it_prints_and_writes_a_row_per_policy(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(policies, "SIZES", (1, 2))
    file = tmp_path / "policies.json"
    policies.command(["--policies", "tho", "pallas:bits=8", "--steps", "5", "--set", "num_ues=2", "--json", str(file)])
    out = capsys.readouterr().out
    found = json.loads(file.read_text(encoding="utf-8"))
    assert list(found["policies"]) == ["tho", "pallas:bits=8"] and found["set"] == ["num_ues=2"]
    for name, by_size in found["policies"].items():
        assert f"| {name} |" in out and list(by_size) == ["1", "2"]
        for row in by_size.values():
            assert row["act_ms"] > 0 and row["step_ms"] > 0
            assert row["ratio"] == pytest.approx(row["act_ms"] / row["step_ms"])


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="--steps is 0"):
        policies.command(["--steps", "0"])
