"""The reports of all seeds as one page, `docs/embedded.md`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ....errors import ModelError

_EXAMS = {
    "recall_128_4": "128 tokens, 4 facts",
    "recall_512_8": "512 tokens, 8 facts",
    "recall_512_12": "512 tokens, 12 facts",
    "recall_512_24": "512 tokens, 24 facts",
    "recall_768_16": "768 tokens, 16 facts",
    "recall_1024_16": "1024 tokens, 16 facts",
    "recall_1024_48": "1024 tokens, 48 facts",
}

_HEAD = """# The embedded model, examined

Made by `python -m kvroam.kvbackend.embedded.training.report --page docs/embedded.md` from the reports beside the
weights.

A Llama of two layers and {parameters:,} parameters, trained by `python -m kvroam.kvbackend.embedded.training.train
--seed S` and stored by `python -m kvroam.kvbackend.embedded.training.publish`. Keys, values, blocks and texts of the
exams were never trained on. An answer is right if its whole value is the model's first choice. In brackets: 95 %
intervals. Shares: Clopper and Pearson's at the effective number of questions, since questions of one row share its
text; bits per byte: bootstrap over windows of 512 tokens. **Bold** means passed; *surely* means that the whole
interval is on the right side of the limit.
"""


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """The reports in a folder: the shipped weights' first, then those of further seeds.

    Raises:
        ModelError: There is none, or one cannot be read.
    """
    paths = [folder / "report.json", *sorted(folder.glob("report_seed*.json"))]
    try:
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    except (OSError, ValueError) as error:
        raise ModelError(f"a report in {folder} cannot be read ({error}); run the report without --measured") from error


def page(reports: list[dict[str, Any]]) -> str:
    """The page as Markdown.

    Args:
        reports: What `full_report` returned, one per seed.
    """
    seeds = [report["made"]["seed"] for report in reports]
    shipped = seeds[0]
    parts = [_HEAD.format(parameters=reports[0]["quality"]["parameters"])]
    parts += ["## Gates", _table(["line", "limit", *(f"seed {seed}" for seed in seeds)], _gate_rows(reports))]
    parts.append(
        f"Seed {shipped} is shipped. {_verdict(reports)} The last line is how far the lower end of a pruned cache's "
        "recall lies above the recall of the whole cache, the largest of all situations and kept fractions."
    )
    rows = [[label, *(_entry(report["quality"][name]) for report in reports)] for name, label in _EXAMS.items()]
    parts += ["## Recall by length", _table(["exam", *(f"seed {seed}" for seed in seeds)], rows)]
    rows = [
        [kind, name, *(_entry(report["scripts"][kind][name]) for report in reports)]
        for kind in reports[0]["drift"]["tables"]
        for name in ("hot", "cold")
    ]
    parts.append("## Whole-cache recall on session scripts")
    parts.append(_table(["situation", "facts", *(f"seed {seed}" for seed in seeds)], rows))
    parts += ["## Training", _table(["seed", "phase", "steps", "million tokens", "loss"], _training_rows(reports))]
    parts += [_note(report) for report in reports if report["made"].get("note")]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def gate_line(row: dict[str, Any]) -> str:
    """One gate as a line of text."""
    ends = f" [{row['low']:.4f}, {row['high']:.4f}], n = {row['count']}" if "low" in row else ""
    sign = "<=" if row["falling"] else ">="
    verdict = "passed" if row["passed"] else "FAILED"
    return f"{verdict}  {row['line']}: {row['value']:.4f}{ends}, limit {sign} {row['limit']:g}"


def _gate_rows(reports: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for i, first in enumerate(reports[0]["gates"]):
        cells = [first["line"], f"{'at most' if first['falling'] else 'at least'} {first['limit']:g}"]
        for report in reports:
            gate = report["gates"][i]
            value = _entry(gate) if "low" in gate else f"{gate['value']:.4f}"
            verdict = ("**passed**" + (", surely" if gate.get("certain") else "")) if gate["passed"] else "failed"
            cells.append(f"{value} {verdict}")
        rows.append(cells)
    return rows


def _verdict(reports: list[dict[str, Any]]) -> str:
    parts = []
    for report in reports:
        failed = [gate["line"] for gate in report["gates"] if not gate["passed"]]
        count = len(report["gates"])
        said = f"fails: {'; '.join(failed)}" if failed else f"passes all {count} lines"
        parts.append(f"Seed {report['made']['seed']} {said}.")
    return " ".join(parts)


def _entry(found: dict[str, Any]) -> str:
    return f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}] n={found['count']}"


def _training_rows(reports: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [str(report["made"]["seed"]), e["phase"], str(e["steps"]), f"{e['tokens'] / 1e6:.2f}", f"{e['loss']:.3f}"]
        for report in reports
        for e in report["training"]
    ]


def _note(report: dict[str, Any]) -> str:
    return f"Seed {report['made']['seed']}: {report['made']['note']}."


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
