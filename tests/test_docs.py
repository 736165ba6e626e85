"""The page about the environment says what the code does."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_environment_page_is_what_the_code_would_write() -> None:
    made = runpy.run_path(str(DOCS / "make_environment.py"))["page"]()
    assert (DOCS / "environment.md").read_text(encoding="utf-8") == made, "run: python docs/make_environment.py"


def test_the_page_about_scenes_is_what_the_manifests_say() -> None:
    made = runpy.run_path(str(DOCS / "make_scenes.py"))["page"]()
    assert (DOCS / "scenes.md").read_text(encoding="utf-8") == made, "run: python docs/make_scenes.py"
    assert (DOCS / "scenes.png").stat().st_size < 500_000
