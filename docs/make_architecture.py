"""Draw docs/architecture.svg, the rooms of the package and what stands on what: `python docs/make_architecture.py`.

`FLOORS` is also what tests/test_architecture.py holds the imports against.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

PICTURE = Path(__file__).with_name("architecture.svg")

# From the ground up. A room may import from lower floors, never from its own floor or above.
FLOORS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("errors", "what a user can cause and repair"), ("palette", "colours"), ("threads", "torch's threads")),
    (("files", "files whole or not at all"), ("processes", "workers"), ("compat", "other libraries' private parts"),
     ("commands", "one command line for all")),
    (("settings", "dataclasses that YAML files fill"),),
    (("kvbackend", "KV caches: prune, encode, restore, measure"),),
    (("envs.sim", "physics, no learning: motion, radio, links, servers"),),
    (("envs.scenes", "cities: Sionna maps, how they are built"), ("envs.base", "Task, Core, declarations, registry")),
    (("envs.render", "pictures and videos"),),
    (("envs.views", "PettingZoo, Gymnasium, Stable-Baselines3"),),
    (("envs.handover", "the first task, and its world"),),
    (("experiment", "environment + train + evaluate, from one file"),),
    (("agents", "policies: papers, baselines, trained ones and their files"),),
    (("evaluation", "roll-outs, statistics, reports"),),
    (("training", "algorithms, checkpoints, runs"),),
    (("train", "train.py: settings -> policy"), ("evaluate", "evaluate.py: policies -> table")),
    (("benchmarks", "speed, the papers' figures, what was learned"),),
)

_WIDTH, _HEIGHT, _GAP, _LEFT = 820, 44, 8, 20
_COLOURS = {"envs": "#56B4E9", "kvbackend": "#009E73", "agents": "#E69F00", "evaluation": "#CC79A7",
            "training": "#CC79A7"}


def svg() -> str:
    """The picture."""
    high = len(FLOORS) * (_HEIGHT + _GAP) + _GAP
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH + 2 * _LEFT} {high}" '
             'font-family="sans-serif" font-size="13">',
             f'<rect width="{_WIDTH + 2 * _LEFT}" height="{high}" fill="#FFFFFF"/>']
    for k, rooms in enumerate(reversed(FLOORS)):
        wide = (_WIDTH - (len(rooms) - 1) * _GAP) / len(rooms)
        y = _GAP + k * (_HEIGHT + _GAP)
        for i, (name, purpose) in enumerate(rooms):
            x = _LEFT + i * (wide + _GAP)
            colour = _COLOURS.get(name.partition(".")[0], "#D9D9D9")
            lines += [f'<rect x="{x:.0f}" y="{y}" width="{wide:.0f}" height="{_HEIGHT}" rx="6" fill="{colour}" '
                      'fill-opacity="0.35" stroke="#444444"/>',
                      f'<text x="{x + wide / 2:.0f}" y="{y + 19}" text-anchor="middle" font-weight="bold">'
                      f'{escape(name.replace(".", "/"))}</text>',
                      f'<text x="{x + wide / 2:.0f}" y="{y + 37}" text-anchor="middle" fill="#333333">'
                      f'{escape(purpose)}</text>']
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
