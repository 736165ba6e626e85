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

PHASES = (
    ("idle", "nothing moves", "yes"),
    ("preparing", "another server receives, or rebuilds, the cache", "yes"),
    ("interrupted", "the radio changes cell or has failed, or the session waits for its cache or for a server", "no"),
    ("following", "the session has resumed on a part of its cache; the rest is on its way", "yes"),
    ("repairing", "the server rebuilds a cache that is not whole from token ids", "yes"),
)

# What happens, in the order in which it may happen; the last column: where it is from.
HANDOVER = (
    ("cell change",
     "Event A3 fires when a neighbour has been stronger by an offset, hysteresis included, throughout the "
     "time-to-trigger. The UE then changes cell, and its radio is interrupted for a moment. With "
     "`actions.trigger: policy` the action decides instead.",
     "TS 38.331, 5.5.4.4 (entering condition) and 5.5.4.1 (time-to-trigger)"),
    ("prepare",
     "A plan with a target starts at once, before the handover: token ids are computed into a cache at the target "
     "(token), the cache is sent (kv), or both at once (split). The session streams on at its source; its new tokens "
     "are sent at the handover. Without a preparation the same begins at the handover.",
     "prefill time by a roofline; prefills in batches, or in chunks between decode steps as in Sarathi-Serve (arXiv "
     "2403.02310), their "
     "fluid model is ours; the split that balances both is ours, after arXiv 2603.28018"),
    ("wait, resume, or forward",
     "What the part `arrival` says where the preparation is not finished at the handover. Wait: for the whole first "
     "part. Resume: on the rows that are there, a twentieth of the cache at least; the most important rows travel "
     "first. Forward: the source serves on over the gNBs in between, and the session switches once all is there; only "
     "as many hops away as `backhaul.forwarding` allows (0: none).",
     "ours"),
    ("backfill",
     "The rows that `keep` or a resumption left out follow after the session has resumed, with the bandwidth weight "
     "`backfill`. The origin keeps them, and memory for them, until they have arrived. Tokens that were produced in "
     "between keep what they saw, so the cache is whole again only if there are none and nothing else was lost. What "
     "`keep` leaves out follows only if the weight was above 0 when the migration began; what a resumption leaves out "
     "always may, and waits while the weight is 0.",
     "ours"),
    ("repair",
     "A cache that is not whole is rebuilt at its own server from token ids, while the session streams. It needs GPU "
     "time, and memory for one more session, and makes the cache whole.",
     "ours"),
    ("forwarding",
     "A session may also stay (detour): its server sends each token over the Xn hops to the user. A stream is delayed "
     "once by each hop that its way has or gains, and every token is carried over every hop.",
     "ours"),
    ("stranded",
     "A session that cannot reach its user, and finds no memory on the server of the user's cell, waits out of "
     "service. At the start of each interval it moves as its plan says as soon as there is room.",
     "ours"),
    ("cancel",
     "A target that turns out wrong, another handover, or the choice cancel drop what is under way; what it has sent "
     "and computed is wasted. The source keeps a session until the target has taken over, so no session is ever lost.",
     "ours"),
)

FEELS = (
    "Time counts only while somebody waits: while an answer is due or streams. A user who reads or types feels "
    "nothing.",
    "Without service, every second is an `interruption`. With service, seconds until the first token beyond the TTFT "
    "objective are `late`, and seconds that tokens take beyond the TPOT objective are `slow`: decoding at a busy "
    "server, or over a weak link. A switch behind the scenes, after forwarding, is felt only where it lasts longer "
    "than one token takes.",
    "Part of it nobody can avoid: the interruption of the radio, and one decode step after it. The metric `floor` is "
    "its price, and `avoidable_cost` is `cost` less that. Policies that decide the handovers themselves could avoid "
    "it too, so there the floor is 0.",
    "The tables show two times of an interruption. `interruption_s_*` is the time without service, whoever waits: what "
    "the network did. `felt_s_mean` is the time in which the user waited: what the reward charges.",
    "All of this is our model; decode steps and prefills follow a roofline (bytes read over memory bandwidth, "
    "operations over peak).",
)


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
        "A plan is for a UE. Where its session ends within the interval, what is left of the plan is for its next one.",
        "Box and Dict formats: `kvroam.envs.views.wrappers`.",
        "## Phases of a session",
        markdown(("phase", "what happens", "tokens stream"), PHASES).strip(),
        "## How a handover goes",
        *(f"**{name.capitalize()}.** {text} *Source: {source}.*" for name, text, source in HANDOVER),
        "## What a user feels",
        *FEELS,
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
