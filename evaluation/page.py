"""report.html: one page with what was evaluated, the tables and the figures; it needs nothing but itself."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from .drawing import styles
from .figures import TITLES
from .metrics import metrics_of

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 72rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.4rem; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e4e4e4; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, table.text td, table.text th { text-align: left; }
table.text td { white-space: normal; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #888; white-space: normal; vertical-align: bottom; }
img { max-width: 100%; height: auto; } figure { margin: 1.2rem 0; } figcaption { color: #444; font-size: .9rem; }
code, pre { font-size: .85rem; background: #f5f5f5; } pre { padding: .6rem; white-space: pre-wrap;
       overflow-wrap: anywhere; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .5em; }
.note { color: #555; font-size: .85rem; }
"""


def page(results: Mapping[str, Any], tables: str, pictures: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        results: as in `report`.
        tables: Markdown with headings, tables and paragraphs.
        pictures: the figures, {file name: PNG}.
    """
    body = [
        "<h1>Evaluation</h1>", *_subject(results),
        "<h2>Figures</h2>" if pictures else "", *(_picture(name, content) for name, content in pictures.items()),
        "<h2>Tables</h2>", *_from_markdown(tables),
        "<h2>Metrics</h2>", _listing(("metric", "unit", "better", "meaning"), (
            (m.name, m.unit, m.better, m.meaning) for m in metrics_of(results).values())),
        "<h2>Provenance</h2>", *_provenance(results),
    ]
    return ('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" '
            f'content="width=device-width, initial-scale=1">\n<title>kvroam evaluation</title>\n<style>{_STYLE}</style>'
            "\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n")


def _subject(results: Mapping[str, Any]) -> list[str]:
    """What was evaluated: policies, scenarios, episodes."""
    looks, parts = styles(results), _parts(results)
    policies = [(f'<span class="swatch" style="background:{looks[name].colour}"></span>{escape(name)}',
                 escape(str(policy.get("kind", ""))), f"{policy['wall_s']:.0f}")
                for name, policy in results["policies"].items()]
    scenarios = [(name, part.get("environment", ""), part.get("config", {}).get("scene", ""), part.get("scoring") or "",
                  _range(part["seeds"]), part.get("fingerprint", "")) for name, part in parts.items()]
    return [
        f"<p>{len(policies)} policies in {len(parts)} scenario{'s' * (len(parts) > 1)}. Episode k of a scenario has "
        "the same users in the same city for every policy. Costs are seconds of a waiting user; ± is the longer arm of "
        "the mean's 95 % interval.</p>",
        "<h2>Who and where</h2>",
        _table(("policy", "kind", "playing [s]"), policies),
        _listing(("scenario", "environment", "scene", "scoring", "seeds", "fingerprint"), scenarios)]


def _parts(results: Mapping[str, Any]) -> Mapping[str, Any]:
    return results.get("by_scenario") or {results.get("scenario") or "this configuration": results}


def _range(seeds: Iterable[int]) -> str:
    listed = [int(seed) for seed in seeds]
    return f"{listed[0]} to {listed[-1]} ({len(listed)})" if len(listed) > 1 else f"{listed[0]} (1)"


def _picture(name: str, content: bytes) -> str:
    title = escape(TITLES.get(name, name))
    data = base64.b64encode(content).decode("ascii")
    return (f'<figure><img alt="{title}" src="data:image/png;base64,{data}"><figcaption>{title} '
            f"(<code>{escape(name)}</code>)</figcaption></figure>")


def _provenance(results: Mapping[str, Any]) -> list[str]:
    """By which command, program and machine."""
    found = [f"<p>kvroam {escape(str(results.get('kvroam', '')))}, format {escape(str(results.get('format', '')))} of "
             "<code>results.json</code>, which has every metric of every episode.</p>"]
    if results.get("command"):
        found.append(f"<pre>{escape(results['command'])}</pre>")
    for title, rows in (("machine", results.get("machine", {})), ("version", results.get("versions", {}))):
        found.append(_listing((title, ""), ((key, "" if value is None else value) for key, value in rows.items())))
    for name, part in _parts(results).items():
        config = json.dumps(part.get("config", {}), indent=1, ensure_ascii=False, default=str)
        found.append(f"<details><summary>Configuration of {escape(name)}</summary><pre>{escape(config)}</pre>"
                     "</details>")
    return found


def _from_markdown(text: str) -> list[str]:
    """HTML of the Markdown that kvroam's own tables are made of."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        while lines and lines[0].startswith("#"):
            heading = lines.pop(0)
            found.append(f"<h3>{_inline(heading.lstrip('# '))}</h3>")
        if lines and lines[0].startswith("|"):
            head, _, *rows = [[_inline(cell.strip()) for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
                              for line in lines]
            found.append(_table(head, rows))
        elif lines:
            found.append(f'<p class="note">{_inline(" ".join(lines))}</p>')
    return found


def _inline(text: str) -> str:
    text = escape(text.replace("\\|", "|"))
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)


def _listing(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A table of texts."""
    return _table([escape(str(cell)) for cell in head], [[escape(str(cell)) for cell in row] for row in rows], "text")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "numbers") -> str:
    """A table of HTML."""
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    return (f'<div class="wide"><table class="{kind}"><thead><tr>{heads}</tr></thead>\n<tbody>' + "\n".join(lines)
            + "</tbody></table></div>")
