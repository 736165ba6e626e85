"""Figure and page of the pruning table: `docs/pruning.png` and `docs/pruning.md`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....palette import COLOURS

Row = dict[str, Any]
_TEXT = ("situation", "budget", "scorer", "precision")
# Black is the oracle.
_COLOURS = (COLOURS[6], *COLOURS[:6], COLOURS[7])
_DRAWN = (
    "oracle", "window", "reconstruction", "reconstruction@head", "expected-attention", "attention-sum-raw", "streaming",
    "random",
)  # fmt: skip


def read_csv(path: Path) -> list[Row]:
    """The rows of `pruning.csv`, numbers as numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: v if k in _TEXT else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def find(rows: Sequence[Row], situation: str, scorer: str, keep: float) -> Row:
    """The row of a kept fraction at 16 bits."""
    wanted = (situation, "", scorer, keep)
    (row,) = (r for r in rows if (r["situation"], r["budget"], r["scorer"], r["keep"]) == wanted)
    return row


def equal(rows: Sequence[Row], situation: str, budget: str, scorer: str, precision: str) -> Row:
    """The row of a precision at a budget in bytes."""
    wanted = (situation, budget, scorer, precision)
    (row,) = (r for r in rows if tuple(r[name] for name in _TEXT) == wanted)
    return row


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw hot and cold recall against the kept fraction, one column per situation, with 95 % intervals.

    Args:
        rows: The table.
        path: A PNG file, replaced if it exists.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    situations = list(dict.fromkeys(row["situation"] for row in rows))
    canvas = FigureCanvasAgg(Figure(figsize=(3.1 * len(situations), 5.6), dpi=100, layout="constrained"))
    panels = canvas.figure.subplots(2, len(situations), sharex=True, sharey=True, squeeze=False)
    for j, situation in enumerate(situations):
        for panel, kind in zip(panels[:, j], ("hot", "cold"), strict=True):
            for scorer, colour in zip(_DRAWN, _COLOURS, strict=True):
                line = [r for r in rows if (r["situation"], r["budget"], r["scorer"]) == (situation, "", scorer)]
                keeps, value = [r["keep"] for r in line], [r[kind] for r in line]
                panel.plot(keeps, value, color=colour, marker="o", ms=3, lw=1.1, label=scorer)
                ends = ([r[f"{kind}_low"] for r in line], [r[f"{kind}_high"] for r in line])
                panel.fill_between(keeps, *ends, color=colour, alpha=0.08, lw=0)
            panel.set_xscale("log")
            panel.set_xticks(keeps, [f"{keep:g}" for keep in keeps])
            panel.minorticks_off()
            panel.grid(alpha=0.25, lw=0.4)
        panels[0, j].set_title(situation, fontsize=10)
        panels[1, j].set_xlabel("kept fraction of the tokens")
    panels[0, 0].set_ylabel("right answers about hot facts")
    panels[1, 0].set_ylabel("right answers about cold facts")
    names = panels[0, 0].get_legend_handles_labels()
    canvas.figure.legend(*names, loc="outside lower center", ncols=len(_DRAWN), fontsize=8, frameon=False)
    canvas.print_figure(str(path), metadata={"Software": None})


_HEAD = """# What pruning does to the embedded model

Made by `python -m kvroam.kvbackend.embedded.training.pruning --out docs`, which also wrote
[pruning.csv](pruning.csv), with every number below and its 95 % interval, and the figure.

Each script is handed over once, at a moment when its situation holds, from its 448th token on, and then reads 160 more
tokens. *Pending*: right after questions that are still open. *Answered*: right after answers. *Adverse*: after a long
stretch of text, before the next question. *Text*: anywhere in text that asks little. An answer is judged if it can be
read from before the handover only. It is *hot* if a question named its fact within the last 128 tokens before the
handover, else *cold*. Four sinks and the eight newest tokens always stay. `@head` means that each layer and KV head
chooses for itself. `attention-sum` is normalised by the number of queries that saw the token, `attention-sum-raw` is
the sum itself, `window` pools over five neighbours, `window-raw` does not. `reconstruction` lets the model repeat its
context and keeps what the repetition looks at; `expected-attention` takes the queries to come to be like the last ones.
The *oracle* is told where the facts stand and which will be asked for soonest, which no scorer can know; it knows
nothing of the text. Intervals are over scripts; parameters of scorers were chosen on other scripts (seed 2027).

![Right answers against the kept fraction](pruning.png)
"""


def page(rows: Sequence[Row]) -> str:
    """The page as Markdown; tests/kvbackend/test_pruning.py holds its sentences against the table.

    Args:
        rows: The table as `read_csv` returns it.
    """
    situations = list(dict.fromkeys(row["situation"] for row in rows))
    scorers = list(dict.fromkeys(row["scorer"] for row in rows))
    keeps = sorted({row["keep"] for row in rows if not row["budget"]}, reverse=True)[1:]
    parts = [_HEAD, "## Findings", _findings(rows)]
    for situation in situations:
        whole = find(rows, situation, "oracle", 1.0)
        parts.append(
            f"## {situation.capitalize()}\n\nThe whole cache answers {whole['hot']:.3f} of {whole['hot_count']:.0f} "
            f"questions about hot facts and {whole['cold']:.3f} of {whole['cold_count']:.0f} about cold ones."
        )
        head = ["scorer", *(f"keep {keep:g}" for keep in keeps)]
        for title, cell in (("hot / cold", _recall), ("KL [nats per token] / top-1", _drift)):
            lines = [[name, *(cell(find(rows, situation, name, keep)) for keep in keeps)] for name in scorers]
            parts += [f"{title}:", _table(head, lines)]
    parts += ["## Equal bytes", _BYTES]
    head = ["situation", "bytes of", "scorer", "precision", "keep", "kB", "KL", "top-1", "hot", "cold"]
    parts.append(_table(head, [_equal(row) for row in rows if row["budget"] and row["situation"] in _COMPARED]))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


_FINDINGS = """\
- **Recall never rises when a cache is pruned**, in any situation, by any scorer, beyond the interval; such a rise would
  mean that the model is used past what it was trained for.
- **What the model looks at when it repeats its context is what it will need.** At keep 0.25 reconstruction answers
  {r_p:.2f} (pending), {r_n:.2f} (answered) and {r_a:.2f} (adverse) of the cold questions, the window {w_p:.2f},
  {w_n:.2f} and {w_a:.2f}. Its KL is {kr_p:.2f}, {kr_n:.2f} and {kr_a:.2f} where the window's is {kw_p:.2f}, {kw_n:.2f}
  and {kw_a:.2f}, and lower than the oracle's, which knows the facts but not the text. Its price is a second pass over
  the context.
- **Lists per head serve it below a quarter.** At keep 0.1, pending, KL {h_p:.2f} with a list per head, {h_one:.2f} with
  one for all; recall is about the same.
- **A tenth of the tokens is enough, if they are the right ones.** The oracle still answers {least:.2f} or more of
  everything at keep 0.1, hot and cold. Reconstruction answers {t_hot:.2f} of the hot questions then (pending; the
  window {t_window:.2f}) and {t_cold:.2f} of the cold ones (the window none): a fact that stands there twice shares
  the attention.
- **Expected attention needs no second pass and lies in between**: at keep 0.5 it answers {e_half:.2f} of the cold
  questions (pending; the window {w_half:.2f}), at keep 0.25 {e_quarter:.2f}.
- **Open questions protect their facts.** Pending, keep 0.25: the window answers {p_window:.2f} of the hot questions,
  recency {p_streaming:.2f}, chance {p_random:.2f}. Pooling decides: without it the window has {p_raw:.2f}, because a
  question looks at the first value token only.
- **Recent answers need no attention.** Answered, keep 0.1: recency answers {n_streaming:.2f} of the hot questions, the
  window {n_window:.2f}; the answers themselves are among the newest tokens.
- **A window that sees only text forgets worse than chance.** Adverse, keep 0.25: window {a_window:.2f} of the hot
  questions, chance {a_random:.2f}, the plain attention sum {a_sum:.2f}, recency {a_streaming:.2f}; at keep 0.1 recency
  has {a_short:.2f}, since its budget no longer reaches back that far. With lists per head the window is worse still:
  {a_head:.2f} at keep 0.75, against {a_one:.2f}.
- **Quantise first, down to 4 bits; then prune.** At the bytes of int4, pending, the whole cache at int4 has KL
  {q_int4[kl]:.3f}, and what reconstruction keeps of it at 16 bits {q_fp16[kl]:.2f}. At the bytes of int2 and below, 4
  bits and fewer tokens win: at half of them, a tenth of the bytes at 16 bits, reconstruction has KL {h_int4[kl]:.2f}
  with int4 ({h_int4[hot]:.2f} of the hot questions and {h_int4[cold]:.2f} of the cold ones), {h_int2[kl]:.2f} with int2
  and {h_fp16[kl]:.2f} with fp16; the window with int4 {w_int4[kl]:.2f} ({w_int4[hot]:.2f} and {w_int4[cold]:.2f})."""


def _findings(rows: Sequence[Row]) -> str:
    """The main findings; the numbers are the table's, the sentences are held against it by a test."""

    def hot(situation: str, scorer: str, keep: float = 0.25) -> float:
        return find(rows, situation, scorer, keep)["hot"]

    def cold(situation: str, scorer: str, keep: float = 0.25) -> float:
        return find(rows, situation, scorer, keep)["cold"]

    def kl(situation: str, scorer: str, keep: float = 0.25) -> float:
        return find(rows, situation, scorer, keep)["kl"]

    def half(scorer: str, precision: str) -> Row:
        return equal(rows, "pending", "int2/2", scorer, precision)

    asked = {"p": "pending", "n": "answered", "a": "adverse"}
    compared = {
        f"{name}_{short}": value(situation, scorer)
        for name, value, scorer in (
            ("r", cold, "reconstruction"),
            ("w", cold, "window"),
            ("kr", kl, "reconstruction"),
            ("kw", kl, "window"),
        )
        for short, situation in asked.items()
    }
    return _FINDINGS.format(
        **compared,
        h_p=kl("pending", "reconstruction@head", 0.1),
        h_one=kl("pending", "reconstruction", 0.1),
        least=min(find(rows, name, "oracle", 0.1)[kind] for name in asked.values() for kind in ("hot", "cold")),
        t_hot=hot("pending", "reconstruction", 0.1),
        t_cold=cold("pending", "reconstruction", 0.1),
        t_window=hot("pending", "window", 0.1),
        e_half=cold("pending", "expected-attention", 0.5),
        w_half=cold("pending", "window", 0.5),
        e_quarter=cold("pending", "expected-attention"),
        p_window=hot("pending", "window"),
        p_streaming=hot("pending", "streaming"),
        p_random=hot("pending", "random"),
        p_raw=hot("pending", "window-raw"),
        n_streaming=hot("answered", "streaming", 0.1),
        n_window=hot("answered", "window", 0.1),
        a_window=hot("adverse", "window"),
        a_random=hot("adverse", "random"),
        a_sum=hot("adverse", "attention-sum-raw"),
        a_streaming=hot("adverse", "streaming"),
        a_short=hot("adverse", "streaming", 0.1),
        a_head=hot("adverse", "window@head", 0.75),
        a_one=hot("adverse", "window", 0.75),
        q_int4=equal(rows, "pending", "int4", "reconstruction", "int4"),
        q_fp16=equal(rows, "pending", "int4", "reconstruction", "fp16"),
        h_int4=half("reconstruction", "int4"),
        h_int2=half("reconstruction", "int2"),
        h_fp16=half("reconstruction", "fp16"),
        w_int4=half("window", "int4"),
    )


_COMPARED = ("pending", "adverse")
_BYTES = """At the bytes of the whole cache at int8, int4 and int2, and at a half and a quarter of the latter, every
precision keeps as many tokens as fit, header, scales and positions included. The situations answered and
text are in the CSV."""


def _recall(row: Row) -> str:
    return f"{row['hot']:.2f} / {row['cold']:.2f}"


def _drift(row: Row) -> str:
    return f"{row['kl']:.2f} / {row['top1']:.2f}"


def _equal(row: Row) -> list[str]:
    numbers = [
        f"{row['keep']:.2f}",
        f"{row['bytes'] / 1000:.1f}",
        *(f"{row[n]:.3f}" for n in ("kl", "top1", "hot", "cold")),
    ]
    return [row["situation"], row["budget"], row["scorer"], row["precision"], *numbers]


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
