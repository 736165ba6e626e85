"""Write docs/environment.md from the code: `python docs/make_environment.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvroam.commands import Command
from kvroam.envs.handover import observations
from kvroam.envs.handover.actions import sizes
from kvroam.envs.handover.config import HandoverConfig, RewardConfig
from kvroam.envs.handover.rewards import NAMES as TERMS
from kvroam.envs.handover.world.state import MEDIA
from kvroam.evaluation.metrics import metrics_table

PAGE = Path(__file__).with_name("environment.md")
UNITS = {
    "interruption": "second without service",
    "drift": "nat of KL divergence, summed over the tokens of the step",
    "detour": "second of delay added to forwarded tokens",
    "traffic": "gigabyte on the backhaul",
    "gpu": "second of prefill",
    "waste": "gigabyte sent, and second computed, for a migration that was cancelled",
    "pingpong": "return to the previous cell",
}


def page() -> str:
    """The page, for the default configuration."""
    config = HandoverConfig()
    table = observations.features(config.actions.candidates)
    levels = config.actions
    choices = {
        "target": "go on; own cell (a session that was left behind); strongest neighbours 1 to "
        f"{levels.candidates}; cancel",
        "medium": ", ".join(MEDIA),
        "keep": ", ".join(map(str, levels.keep)),
        "precision": ", ".join(f"{bits} bit" for bits in levels.bits),
        "share": ", ".join(map(str, levels.weight)) + " (bandwidth weight; 0 waits)",
    }
    lines = ["# The Handover environment", "", "Made by `python docs/make_environment.py`.", "", "## Action", "",
             f"`MultiDiscrete({sizes(levels)})` per UE.", "", "| # | part | choices |", "|---|---|---|"]
    lines += [f"| {i} | {name} | {text} |" for i, (name, text) in enumerate(choices.items())]
    lines += ["", "With `actions.trigger: policy` there is a sixth part, handover: 0 stay in the cell; 1 change to the "
              "target, a neighbour, now.", "", "Box and Dict formats: `kvroam.envs.views.wrappers`."]
    lines += ["", "## Observation", "", f"`Box` float32 [{len(table)}] per UE.", "",
              "| # | name | meaning | unit | min | max |", "|---|---|---|---|---|---|"]
    lines += [f"| {i} | `{f.name}` | {f.meaning} | {f.unit} | {f.low:g} | {f.high:g} |" for i, f in enumerate(table)]
    lines += ["", "## Reward", "", "Minus the sum of price times amount; `info` has every term as `reward_<term>`. "
              "With `reward.sharing: team` every UE receives the mean over the UEs, term by term.", "",
              "| term | default price | per |", "|---|---|---|"]
    lines += [f"| {name} | {getattr(RewardConfig(), name):g} | {UNITS[name]} |" for name in TERMS]
    return "\n".join([*lines, "", "## Metrics of an episode", "", metrics_table()])


def execute(args: argparse.Namespace) -> None:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")


command = Command("python docs/make_environment.py", __doc__, lambda parser: None, execute, torch=False)

if __name__ == "__main__":
    sys.exit(command.main())
