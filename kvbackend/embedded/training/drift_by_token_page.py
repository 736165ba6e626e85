"""The page of the table of drift by kind of token: `docs/drift_by_token.md`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_WORDS = ("source", "scorer", "kind")

_HEAD = """# Where the drift of a pruned cache falls

Made by `python -m kvroam.kvbackend.embedded.training.drift_by_token --out docs`, which also wrote
[drift_by_token.csv](drift_by_token.csv).

The KL divergence of a session is a mean over very different tokens. This page splits it by what is predicted, for one
handover at token {start} and the {horizon} tokens after it, {rows} rows per source, 16 bits. *Sessions* are the scripts
of the situation "text" of [pruning.md](pruning.md), with the same seed. *Own text* is the text that these sessions
stream, alone: the model wrote it. *Held-out text* comes from files of Python's standard library that training never
saw, and so depends on the Python that runs the command. In brackets: 95 % intervals over rows.
"""

_FINDINGS = """\
- **Plain text drifts little.** A quarter of the cache, chosen by the window, costs {own:.3f} nat per token on the
  model's own text and {held:.3f} on held-out text, {own_factor:.1f} and {held_factor:.1f} times less than in sessions;
  recency costs {own_streaming:.3f} and {held_streaming:.3f}.
- **In sessions that ask little, the few tokens about facts make most of the drift.** {text_share} of the tokens are
  text and have {text:.3f} nat each. The other {rest_share} carry {rest_part} of the whole {whole:.2f}: questions and
  answers {asked_part}, statements {statement_part}.
- **What an answer loses is recall.** The whole cache is sure of a value; a model that knows nothing of it and guesses
  evenly among a hundred pairs of digits is ln 100 = 4.6 nat away, and one that guesses another fact's value farther.
- **What a statement loses hurts nobody.** Its value is random and is given to the model, which never has to say it.
  Training puts no weight on these tokens, so what the model expects there is arbitrary and changes with the cache.
- **Compare models on plain text.** `python -m kvroam.kvbackend.sweep --model MODEL --text FILE` measures any other one.
  The drift of a session says above all how many of its facts are gone; recall says that better."""


def read_csv(path: Path) -> list[Row]:
    """The rows of `drift_by_token.csv`, numbers as numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: v if k in _WORDS else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def find(rows: Sequence[Row], source: str, scorer: str, keep: float, kind: str = "all") -> Row:
    """The row of a kind of token."""
    wanted = (source, scorer, keep, kind)
    (row,) = (r for r in rows if (r["source"], r["scorer"], r["keep"], r["kind"]) == wanted)
    return row


def page(rows: Sequence[Row], start: int, horizon: int) -> str:
    """The page as Markdown; tests/kvbackend/test_drift_by_token.py holds its sentences against the table.

    Args:
        rows: The table as `read_csv` returns it.
        start: The handover [tokens].
        horizon: Predictions that are judged [tokens].
    """
    count = int(max(row["tokens"] for row in rows) // horizon)
    scorers, keeps = (list(dict.fromkeys(row[name] for row in rows)) for name in ("scorer", "keep"))
    parts = [_HEAD.format(start=start, horizon=horizon, rows=count), "## Findings", _findings(rows)]
    parts.append("## By kind of token\n\nSessions, window: nat per token of the kind, and its part of the whole.")
    head = ["predicted", "tokens", *(f"keep {keep:g}" for keep in keeps)]
    split = [[kind, _share(rows, kind), *(_split(rows, keep, kind) for keep in keeps)] for kind in _kinds(rows)]
    parts.append(_table(head, split))
    parts.append("## By scorer\n\nAll tokens, nat per token.")
    sources = list(dict.fromkeys(row["source"] for row in rows))
    lines = [
        [source, scorer, *(_whole(find(rows, source, scorer, keep)) for keep in keeps)]
        for source in sources
        for scorer in scorers
    ]
    parts.append(_table(["source", "scorer", *head[2:]], lines))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _findings(rows: Sequence[Row]) -> str:
    """The findings at keep .25; the numbers are the table's, a test holds the sentences against it."""

    def row(source: str, scorer: str = "window", kind: str = "all") -> Row:
        return find(rows, source, scorer, 0.25, kind)

    whole, text = row("sessions")["part"], row("sessions", kind="text")
    asked = sum(row("sessions", kind=kind)["part"] for kind in ("question", "answer"))
    return _FINDINGS.format(
        own=row("own text")["part"],
        held=row("held-out text")["part"],
        own_factor=whole / row("own text")["part"],
        held_factor=whole / row("held-out text")["part"],
        own_streaming=row("own text", "streaming")["part"],
        held_streaming=row("held-out text", "streaming")["part"],
        text_share=_percent(text["share"]),
        text=text["kl"],
        rest_share=_percent(1.0 - text["share"]),
        rest_part=_percent(1.0 - text["part"] / whole),
        whole=whole,
        asked_part=_percent(asked / whole),
        statement_part=_percent(row("sessions", kind="statement")["part"] / whole),
    )


def _kinds(rows: Sequence[Row]) -> list[str]:
    return [kind for kind in dict.fromkeys(row["kind"] for row in rows) if kind != "all"]


def _share(rows: Sequence[Row], kind: str) -> str:
    (share,) = {row["share"] for row in rows if row["kind"] == kind}
    return f"{100 * share:.1f} %"


def _split(rows: Sequence[Row], keep: float, kind: str) -> str:
    row, whole = find(rows, "sessions", "window", keep, kind), find(rows, "sessions", "window", keep)
    return f"{row['kl']:.3f}, {_percent(row['part'] / whole['part'])}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _whole(row: Row) -> str:
    return f"{row['part']:.3f} [{row['part_low']:.3f}, {row['part_high']:.3f}]"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
