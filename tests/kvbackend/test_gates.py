"""The gates: their verdicts by hand, and the shipped page against the shipped reports."""

import copy
import json
from pathlib import Path

import pytest

from kvroam.errors import ModelError
from kvroam.kvbackend.embedded.manifest import ASSETS, read_manifest
from kvroam.kvbackend.embedded.training import report as report_module
from kvroam.kvbackend.embedded.training.gates import GATES, RISE, greatest_rise, judge
from kvroam.kvbackend.embedded.training.report_page import gate_line, page, read_reports

DOCS = Path(__file__).parents[2] / "docs"


def cell(keep, hot, cold, half=0.05):
    return {"keep": keep, "hot": hot, "hot_low": hot - half, "cold": cold, "cold_low": cold - half}


@pytest.fixture
def passing():
    """A report in which every line is exactly at its limit, half an interval of .01 around it."""
    quality = {
        gate.exam: {"value": gate.limit, "low": gate.limit - 0.01, "high": gate.limit + 0.01, "count": 9}
        for gate in GATES
    }
    pending = [cell(1.0, 0.99, 0.98), cell(0.5, 0.8, 0.3)]
    text = [cell(0.5, 0.9, 0.9), cell(1.0, 0.95, 0.9)]
    return {"quality": quality, "drift": {"tables": {"pending": pending, "text": text}}}


def test_a_value_at_its_limit_passes_but_not_surely(passing):
    rows = judge(passing)
    assert [row["line"] for row in rows] == [*(gate.line for gate in GATES), RISE]
    assert all(row["passed"] for row in rows) and not any(row.get("certain") for row in rows)


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.exam)
def test_each_line_fails_alone_and_is_sure_where_the_interval_is(passing, gate):
    found = passing["quality"][gate.exam]
    better = -0.02 if gate.falling else 0.02
    for shift, passed, certain in ((better, True, True), (-better, False, False)):
        moved = {name: found[name] + shift for name in ("value", "low", "high")}
        changed = {**passing, "quality": {**passing["quality"], gate.exam: {**found, **moved}}}
        rows = judge(changed)
        verdicts = {row["line"]: (row["passed"], row.get("certain")) for row in rows}
        assert verdicts.pop(gate.line) == (passed, certain)
        assert all(passed for passed, _ in verdicts.values())
        failed = [row["line"] for row in rows if gate_line(row).startswith("FAILED")]
        assert failed == ([] if passed else [gate.line])


def test_recall_that_rises_beyond_its_interval_fails(passing):
    assert greatest_rise(passing["drift"]["tables"]["pending"]) == pytest.approx(0.75 - 0.99)
    assert greatest_rise(passing["drift"]["tables"]["text"]) == pytest.approx(0.85 - 0.9)
    sick = copy.deepcopy(passing)
    sick["drift"]["tables"]["text"][0] = cell(0.5, 0.4, 0.97)
    (row,) = (row for row in judge(sick) if row["line"] == RISE)
    assert not row["passed"] and row["value"] == pytest.approx(0.02)


def test_shipped_verdicts_follow_from_the_shipped_numbers():
    reports = read_reports(ASSETS)
    assert len(reports) >= 2 and reports[0]["made"]["seed"] == read_manifest(ASSETS)["made"]["seed"]
    assert len({report["made"]["seed"] for report in reports}) == len(reports)
    for report in reports:
        assert judge(report) == report["gates"]


def test_the_page_is_that_of_the_shipped_reports():
    text = (DOCS / "embedded.md").read_text(encoding="utf-8")
    assert text == page(read_reports(ASSETS))
    first = read_reports(ASSETS)[0]["quality"]["recall_1024_16"]
    assert f"{first['value']:.4f} [{first['low']:.4f}, {first['high']:.4f}] n={first['count']}" in text


def test_the_command_renews_page_and_manifest_of_reports_made_earlier(copied, tmp_path, capsys):
    changed = json.loads((copied / "report.json").read_text())
    changed["made"]["seed"] = 77
    (copied / "report.json").write_text(json.dumps(changed))
    assert report_module.command.main(["--folder", str(copied), "--measured", "--page", str(tmp_path / "page.md")]) == 0
    assert "Seed 77 is shipped." in (tmp_path / "page.md").read_text(encoding="utf-8")
    assert read_manifest(copied)["files"]["report.json"] != read_manifest(ASSETS)["files"]["report.json"]
    (copied / "report.json").unlink()
    with pytest.raises(ModelError, match="without --measured"):
        read_reports(copied)
    assert report_module.command.main(["--folder", str(copied), "--measured", "--page", str(tmp_path / "page.md")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_readme_quotes_the_shipped_report():
    quality = read_reports(ASSETS)[0]["quality"]
    percent = {name: f"{100 * found['value']:.1f}" for name, found in quality.items() if isinstance(found, dict)}
    blocks = sorted((text for name, text in percent.items() if name.startswith("block")), key=float)
    text = " ".join((DOCS.parent / "README.md").read_text(encoding="utf-8").split())
    for part in (
        f"{percent['recall_512_8']} % of whole values right at 512 tokens with 8 facts",
        f"{percent['recall_1024_16']} % at 1024 tokens with 16",
        f"{blocks[0]} to {blocks[-1]} % of repeated random blocks copied",
        f"{quality['bits_per_byte']['value']:.2f} bits per byte",
    ):
        assert part in text
    assert all(row["passed"] for report in read_reports(ASSETS) for row in report["gates"])
