"""What the shipped model has to show on held-out data, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gate:
    """One requirement.

    Attributes:
        line: What is required, in words.
        exam: Its entry in the report's "quality".
        limit: Least value; the greatest one where `falling`.
        falling: Whether less is better.
    """

    line: str
    exam: str
    limit: float
    falling: bool = False


GATES = (
    Gate("recall, 512 tokens, 8 facts", "recall_512_8", 0.99),
    Gate("recall, 1024 tokens, 16 facts", "recall_1024_16", 0.95),
    Gate("recall, keys that share words", "recall_512_12_shared", 0.97),
    Gate("recall, free keys of several tokens", "recall_512_12_free", 0.95),
    Gate("second copy of a block, 64 in 128", "block_64_in_128", 0.95),
    Gate("second copy of a block, 64 in 512", "block_64_in_512", 0.95),
    Gate("second copy of a block, 256 in 512", "block_256_in_512", 0.95),
    Gate("second copy of a block, 512 in 1024", "block_512_in_1024", 0.95),
    Gate("bits per byte of held-out text", "bits_per_byte", 1.5, falling=True),
)
RISE = "recall does not rise under pruning"


def judge(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold a report against GATES.

    Args:
        report: With "quality" (an estimate with its interval per exam) and "drift".

    Returns:
        One row per gate: line, limit, value, low, high, count, `passed` (the estimate is on the right side) and
        `certain` (the whole 95 % interval is). The last row is RISE: its value is the greatest distance by which the
        lower end of a pruned cache's recall exceeds the whole cache's recall; above 0 it fails.
    """
    rows = []
    for gate in GATES:
        found = report["quality"][gate.exam]
        sign = -1.0 if gate.falling else 1.0
        worst = found["high"] if gate.falling else found["low"]
        rows.append(
            {
                "line": gate.line,
                "limit": gate.limit,
                "falling": gate.falling,
                **found,
                "passed": sign * found["value"] >= sign * gate.limit,
                "certain": sign * worst >= sign * gate.limit,
            }
        )
    rise = max(greatest_rise(table) for table in report["drift"]["tables"].values())
    passed = rise <= 0.0
    rows.append({"line": RISE, "limit": 0.0, "falling": True, "value": round(rise, 4), "passed": passed})
    return rows


def greatest_rise(table: list[dict[str, Any]]) -> float:
    """How far the lower end of a pruned cache's recall lies above the whole cache's recall, at most.

    Recall that rises when a cache is pruned means that the model is used beyond what it was trained for.

    Args:
        table: Rows of one situation and scorer with `keep`, `hot`, `hot_low`, `cold` and `cold_low`, one with keep 1.
    """
    (whole,) = (row for row in table if row["keep"] == 1.0)
    return max(row[f"{kind}_low"] - whole[kind] for row in table if row["keep"] < 1.0 for kind in ("hot", "cold"))
