"""The table of a sweep: one point per combination."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ...files import write_whole


@dataclass(frozen=True)
class Point:
    """One line of the table: means over all sessions, per session for bytes, per token for the rest."""

    scorer: str
    keep: float
    precision: str
    bytes: float  # of the payload
    kl: float  # KL(full || degraded) [nats]
    js: float  # Jensen-Shannon divergence [nats]
    top1: float  # fraction of tokens at which both predict the same
    dnll: float  # extra negative log-likelihood of the text [nats]
    recall: float | None  # fraction of answers that are right; None where the text asks nothing
    recall_hot: float | None  # of those asked about recently
    recall_cold: float | None  # of the others
    wrong: float | None  # answers per token that are wrong, and right with the whole cache


def write_table(points: Sequence[Point], path: Path) -> None:
    """Write points as CSV, six significant digits, an empty cell where there is no value; all of it or nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Point)])
    for point in points:
        cells = asdict(point).values()
        writer.writerow(["" if x is None else f"{x:.6g}" if isinstance(x, float) else x for x in cells])
    write_whole(path, lambda draft: draft.write_text(text.getvalue(), encoding="utf-8"))
