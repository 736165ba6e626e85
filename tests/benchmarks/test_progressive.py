"""What a rest is worth: the program runs, and the page shows what it wrote."""

import json
from pathlib import Path

import pytest

from kvroam.benchmarks import progressive
from kvroam.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_on_the_page_is_what_was_measured():
    rows = json.loads((DOCS / "progressive.json").read_text(encoding="utf-8"))
    assert progressive.table(rows) in (DOCS / "kvbackend.md").read_text(encoding="utf-8")
    assert [(row["keep"], row["wait"]) for row in rows] == [
        (keep, wait) for keep in progressive.KEEPS for wait in progressive.WAITS
    ]


def test_a_rest_that_comes_takes_nearly_all_of_the_drift_away(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(progressive, "KEEPS", (0.25,))
    monkeypatch.setattr(progressive, "WAITS", (0, 16))
    progressive.command(["--scripts", "3", "--json", str(tmp_path / "rows.json")])
    at_once, later = json.loads((tmp_path / "rows.json").read_text())
    assert at_once["during"] is None and at_once["after"] == [0.0, 0.0, 0.0] and at_once["after_wrong"] == 0.0
    assert 0 < 20 * later["after"][0] < later["never"][0]
    assert later["after"][1] <= later["after"][0] <= later["after"][2]
    assert "| 0.25 | 16 |" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--scripts is 1"):
        progressive.command(["--scripts", "1"])
