"""Write docs/policies.md from the catalogue of policies: `python docs/make_policies.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvroam.agents.handover.catalogue import ALIASES, CATALOGUE
from kvroam.commands import Command
from kvroam.envs.handover.config import HandoverConfig

PAGE = Path(__file__).with_name("policies.md")


def page() -> str:
    """The page."""
    lines = [
        "# Policies", "", "Made by `python docs/make_policies.py` from `kvroam.agents.handover.catalogue`.", "",
        "`python evaluate.py --policies NAME ...` takes a name, a name with arguments such as "
        "`token-aware:keep=0.1,bits=8`, an alias, or the path of a checkpoint. The policy's `name` is the "
        "name with the arguments that differ from their defaults.", "",
        "| name | what it does | source | assumption | arguments and defaults |", "| --- | --- | --- | --- | --- |",
    ]
    for name, entry in CATALOGUE.items():
        arguments = ", ".join(f"`{key}={value}`" for key, value in entry.arguments(HandoverConfig()).items())
        lines.append(f"| `{name}` | {entry.does} | {entry.source} | {entry.assumes} | {arguments or 'none'} |")
    lines += ["", "| alias | stands for |", "| --- | --- |"]
    lines += [f"| `{alias}` | `{name}` |" for alias, name in ALIASES.items()]
    return "\n".join(lines) + "\n"


def execute(args: argparse.Namespace) -> None:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")


command = Command("python docs/make_policies.py", __doc__, lambda parser: None, execute, torch=False)

if __name__ == "__main__":
    sys.exit(command.main())
