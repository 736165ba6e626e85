"""The snippets of docs/interfaces.md run as they stand."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "interfaces.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
# What kvroam does not depend on.
OPTIONAL = ("ray", "torchrl", "sb3_contrib")


def modules(snippet: str) -> set[str]:
    """Top-level names of what a snippet imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[f"snippet {i}" for i in range(len(SNIPPETS))])
def test_it_runs(snippet: str) -> None:
    for name in sorted(modules(snippet) & set(OPTIONAL)):
        pytest.importorskip(name, reason=f"{name} is no dependency of kvroam; install it to run this snippet")
    exec(compile(snippet, "docs/interfaces.md", "exec"), {})


def test_every_interface_has_a_snippet() -> None:
    used = set().union(*map(modules, SNIPPETS))
    assert used >= {"pettingzoo", "gymnasium", "stable_baselines3", *OPTIONAL}
