"""report.html: one page that says all and needs nothing from elsewhere."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

from kvroam.evaluation import report

VOID = {"meta", "img", "br", "link"}


class Reader(HTMLParser):
    """Collects a page's text, its links and the tags that stay open."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attributes if key in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_the_page_holds_everything_and_asks_for_nothing(made_up, tmp_path) -> None:
    policies, places = ["a<b>&", "top|k", "ppo"], ["calm", "rush_hour"]
    paths = report.write_results(tmp_path, made_up(policies, places, kinds={"ppo": "learned"}))
    text = paths["report.html"].read_text(encoding="utf-8")
    page = read(text)
    assert all(name in page.text for name in (*policies, *places, "learned", "python evaluate.py", "backhaul_gb"))
    pictures = [link for link in page.links if link.startswith("data:image/png;base64,")]
    assert pictures == page.links, "nothing but the figures themselves"
    assert [base64.b64decode(one.partition(",")[2]) for one in pictures] == [
        path.read_bytes() for name, path in paths.items() if name.endswith(".png")]
    assert "script" not in page.tags and "link" not in page.tags and "url(" not in text and "@import" not in text
    assert page.tags.count("table") >= 6


def test_the_tables_are_those_of_table_md(made_up, tmp_path) -> None:
    results = made_up(["cho", "tho"])
    paths = report.write_results(tmp_path, results)
    page = read(paths["report.html"].read_text(encoding="utf-8"))
    cells = [cell.strip().strip("*") for line in paths["table.md"].read_text(encoding="utf-8").splitlines()
             if line.startswith("| ") and "---" not in line for cell in line.strip("|").split("|")]
    assert len(cells) > 20 and all(cell in page.text for cell in cells)
