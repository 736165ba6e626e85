"""Write docs/environment.md from the declarations of the task: `python docs/make_environment.py`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvroam.commands import Command
from kvroam.envs.base.declare import markdown
from kvroam.envs.handover.task import HandoverTask

PAGE = Path(__file__).with_name("environment.md")


def page(task: type[HandoverTask] = HandoverTask) -> str:
    """The page, for the default configuration."""
    config = task.Config()
    parts, features = task.layout(config)
    # What a configuration with more parts would add.
    more = task.layout(replace(config, actions=replace(config.actions, trigger="policy")))[0][len(parts):]
    rows: list[tuple[Any, ...]] = [(i, part.name, ", ".join(part.choices), part.meaning)
                                   for i, part in enumerate((*parts, *more))]
    paragraphs = [
        f"# The {task.title} environment",
        "Made by `python docs/make_environment.py`.",
        "## Action",
        f"`MultiDiscrete({[part.size for part in parts]})` per agent.",
        markdown(("#", "part", "choices", "meaning"), rows).strip(),
        "Box and Dict formats: `kvroam.envs.views.wrappers`.",
        "## Observation",
        f"`Box` float32 [{len(features)}] per agent.",
        markdown(("#", "name", "meaning", "unit", "min", "max"),
                 ((i, f"`{f.name}`", f.meaning, f.unit, f"{f.low:g}", f"{f.high:g}")
                  for i, f in enumerate(features))).strip(),
        "## Reward",
        "Minus the sum of price times amount; `info` has every term as `reward_<term>`. With `reward.sharing: team` "
        "every agent receives the mean over the agents, term by term.",
        markdown(("term", "default price", "per"),
                 ((term.name, f"{getattr(config.reward, term.name):g}", term.per) for term in task.terms)).strip(),
        "## Metrics of an episode",
        markdown(("metric", "unit", "better", "meaning"),
                 ((f"`{m.name}`", m.unit, m.better, m.meaning) for m in task.metrics)).strip(),
    ]
    return "\n\n".join(paragraphs) + "\n"


def execute(args: argparse.Namespace) -> None:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")


command = Command("python docs/make_environment.py", __doc__, lambda parser: None, execute, torch=False)

if __name__ == "__main__":
    sys.exit(command.main())
