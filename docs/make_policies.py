"""Write docs/policies.md from the catalogue of policies: `python docs/make_policies.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvroam.agents import policy_file, shipped
from kvroam.agents.handover.catalogue import CATALOGUE
from kvroam.commands import Command
from kvroam.envs.handover.config import HandoverConfig

PAGE = Path(__file__).with_name("policies.md")

# tests/agents/test_own.py runs the example and its command.
OWN = '''
## Your own policy

Save this as `mine.py`:

```python
"""Move long sessions early and at 8 bit, rebuild short ones from their token ids."""
import numpy as np
from kvroam.agents.handover import KV, TOKEN, reactive_plans


class MyPolicy:
    def __init__(self, limit: float = 4000.0):
        self.limit = limit

    def act(self, view):
        plans = reactive_plans(view, TOKEN, bits=8)
        long = view.context_tokens > self.limit
        soon = np.isfinite(view.handover_in_s) & (view.handover_cell != view.server_cell)
        plans["medium"] = np.where(long, KV, TOKEN)
        plans["target"] = np.where(long & soon, view.handover_cell, plans["target"])
        return plans
```

```
python evaluate.py --policies mine.py:MyPolicy mine.py:MyPolicy:limit=2000 ctho --episodes 2
```

* `act(view)` is all that a policy needs. `view` is a `kvroam.envs.NetworkView`: arrays [environment, UE] or [environment, cell] of what the network knows now. It returns a plan for every UE of every environment, an array of dtype `kvroam.envs.handover.world.state.PLAN` and shape [environment, UE]. `reactive_plans(view)` makes one to start from: it prepares nothing and moves every session once its UE has changed cell. Anything else is refused.
* `reset(view)` is called when a new episode begins in all environments; a policy without memory can leave it out. `name` is what tables call it: by default the class with its arguments, `MyPolicy:limit=2000`.
* A constructor or factory that takes `config` or `seed` is given the environment's configuration or the seed. Further arguments follow a colon, `key=value,key=value`; each is read as the type of its default.
* `package.module:MyPolicy` names a class, a factory or an object of a module that can be imported. A file is run by itself: what needs several files belongs into a package.
* With `actions.trigger: policy` the policies decide when a UE changes cell. A policy that says nothing about it follows event A3: its UEs change cell when the time-to-trigger has run out. One that writes `plans["handover"]` itself (a cell, or -1 to stay) has the attribute `decides_handovers = True`. A plain function of the view decides everything itself.
* The view predicts each UE's next cell at constant velocity. `kvroam.envs.sim.route_predictor.RoutePredictor(view.sim)`, made in `reset` and asked by `watch(view.sim)` in every step, knows the street map: a cell, a time and a chance for each UE ([how well](mobility.md)).
* Random draws should come from the environment's policy stream, as those of `random` do (`kvroam.agents.random`): a generator of your own makes an episode depend on what was played before it.

In Python, `kvroam.agents.make(given, config, seed=0)` takes all of this: a name, `FILE.py:CLASS`, `MODULE:CLASS`, a policy file, a class, an object with `act(view)`, or a function of the view. So do `evaluate(config, [given, ...], ...)` and the argument `others` of the ego environments.
'''  # noqa: E501


def page() -> str:
    """The page."""
    lines = [
        "# Policies", "", "Made by `python docs/make_policies.py` from `kvroam.agents.handover.catalogue`.", "",
        "`python evaluate.py --policies NAME ...` takes a name, a name with arguments such as "
        "`token-aware:keep=0.1,bits=8` or `constant:medium=split,bits=4,when=early,keep=0.5`, an alias (more arguments "
        "may follow: `token-aware-0.1:bits=8`), a policy file or run folder of train.py, or "
        "[your own policy](#your-own-policy). The policy's `name` is the name with the arguments that differ from "
        "their defaults.", "",
        "| name | what it does | source | assumption | arguments and defaults |", "| --- | --- | --- | --- | --- |",
    ]
    for name, entry in CATALOGUE.entries.items():
        arguments = ", ".join(f"`{key}={value}`" for key, value in entry.arguments(HandoverConfig()).items())
        lines.append(f"| `{name}` | {entry.does} | {entry.source} | {entry.assumes} | {arguments or 'none'} |")
    lines += ["", "| alias | stands for |", "| --- | --- |"]
    lines += [f"| `{alias}` | `{name}` |" for alias, name in CATALOGUE.aliases.items()]
    if shipped():
        lines += ["", "## Trained policies that ship", "",
                  "| name | algorithm | steps | asked | environment | SHA-256 |",
                  "| --- | --- | --- | --- | --- | --- |"]
    for name, path in shipped().items():
        about = policy_file.read(path).about
        asked = "at decision points" if about.decisions else "in every interval"
        lines.append(f"| `{name}` | {about.algorithm} | {about.steps} | {asked} | {about.environment} | "
                     f"`{about.sha256[:12]}` |")
    return "\n".join(lines) + "\n" + OWN


def execute(args: argparse.Namespace) -> None:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")


command = Command("python docs/make_policies.py", __doc__, lambda parser: None, execute, torch=False)

if __name__ == "__main__":
    sys.exit(command.main())
