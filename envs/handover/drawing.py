"""What a picture of Handover shows: users and their sessions, caches on their way, loads of the servers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..base.drawing import Arc, Chart, Drawing, Look
from ..render.colours import BLUE, FAINT, GREEN, ORANGE, PURPLE, SKY, TEXT, VERMILLION, YELLOW
from .world.state import IDLE, INTERRUPTED, PREPARING, TOKEN

LOOKS = (
    Look("streaming", "answer streams", SKY),
    Look("idle", "user reads or types", FAINT, hollow=True),
    Look("preparing", "cache moves, still streams", ORANGE, on_top=True),
    Look("interrupted", "no service, cache awaited", VERMILLION, halo=True, on_top=True),
    Look("stranded", "no service, no server has room", TEXT, halo=True, on_top=True),
    Look("following", "streams, rest of cache follows", GREEN, on_top=True),
    Look("repairing", "streams, cache is rebuilt here", BLUE, on_top=True),
    Look("forwarded", "session stayed, tokens follow", PURPLE),
    Look("degraded", "cache is not exact", YELLOW),
)
_LOOK = {look.name: k for k, look in enumerate(LOOKS)}
# By medium (kvroam.envs.handover.world.state.MEDIA): token, kv, split; with detour nothing moves.
SHAPES = ("triangle", "square", "diamond", "disc")
_SHAPE_WORDS = ("token ids; server computes", "KV cache over the backhaul", "split: both at once")
# A server whose next job starts after this is drawn as full [s].
FULL_WAIT_S = 0.5


def looks_of(task: Any, env: int) -> np.ndarray:
    """What happens to each user's session, index into LOOKS, int [U]; the first of these that holds.

    stranded: no service, and no server in reach has room; interrupted: no service until the radio is back and the cache
    has arrived; preparing: the cache moves while the session streams; following: the session has resumed on a part of
    its cache and the rest follows; repairing: the cache is rebuilt where it is; forwarded: the session stayed at
    another gNB, which forwards its tokens; degraded: its cache is not whole or not exact; streaming; idle: the user
    reads or types.
    """
    ue, view = task.sim.state.ue[env], task.view
    holds = {"stranded": ue["stranded"], "interrupted": ue["phase"] == INTERRUPTED,
             "preparing": ue["phase"] == PREPARING, "following": view.following[env],
             "repairing": view.repairing[env], "forwarded": ue["server"] != ue["radio"],
             "degraded": ~ue["healthy"], "streaming": ue["streaming"]}
    return np.select(list(holds.values()), [_LOOK[name] for name in holds], _LOOK["idle"])


def drawing(task: Any, env: int) -> Drawing:
    """Environment `env` of a HandoverTask as it is now."""
    sim, look = task.sim, looks_of(task, env)
    ue, flow = sim.state.ue[env], sim.state.flow[env]
    nominal_bps = float(sim.params["capacity_bps"][0])
    # The rest of a cache comes from where its session was before; all else from where the session is.
    source = np.where(task.view.following[env], ue["origin"], ue["server"])
    arcs = []
    for u in np.flatnonzero((ue["phase"] != IDLE) & (source != ue["target"])):
        me, bits = ue[u], ue[u]["bits_sent"] + ue[u]["bits_left"]
        rate_bps = float(flow[u]["bits_sent"]) / sim.interval_s
        arcs.append(Arc(
            int(source[u]), int(me["target"]), int(look[u]),
            None if me["medium"] == TOKEN else min(1.0, math.sqrt(rate_bps / nominal_bps)),
            float(me["bits_sent"] / bits) if bits > 0.0 else 1.0, rate_bps))
    forwarded = ue[(ue["server"] != ue["radio"]) & (ue["phase"] != INTERRUPTED)]
    step, measured = f"{sim.interval_s:g} s", task.scorer is not None
    kl, wrong = (0.0, 0.0) if task.scores is None else (task.scores.kl[env].sum(), task.scores.wrong[env].sum())
    waited_s = flow["interruption_s"] + flow["late_s"] + flow["slow_s"]
    return Drawing(
        scene=sim.scene, time_s=float(sim.state.world[env]["time_s"]), interval_s=sim.interval_s,
        position_m=np.stack([ue["x"], ue["y"]], axis=-1), place=ue["radio"].copy(),
        looks=LOOKS, look=look,
        shape=tuple(SHAPES[me["medium"]] if me["phase"] != IDLE else "disc" for me in ue),
        arcs=tuple(arcs),
        dashes=tuple(sorted({(int(me["server"]), int(me["radio"]), _LOOK["forwarded"])
                             for me in forwarded})),
        bars=_bars(task, env),
        charts=(
            Chart(f"users wait [ms per {step}]", VERMILLION, 100.0, 1e3 * float(waited_s.sum())),
            Chart(f"drift [nat per {step}]" if measured else "drift: not measured", YELLOW, 1.0,
                  float(kl) if measured else None),
            Chart("wrong answers" if measured else "wrong: not measured", PURPLE, 1.0,
                  float(wrong) if measured else None),
        ),
        numbers=_numbers(task, env),
        shapes=tuple(zip(SHAPES, _SHAPE_WORDS, strict=False)), shapes_look=_LOOK["preparing"],
        arc_look=_LOOK["interrupted"], dash_look=_LOOK["forwarded"],
        arc_words=("bright: sent, width: rate", "token ids on their way", "tokens are forwarded"),
        total=f"backhaul carries {sum(arc.rate for arc in arcs) / 1e9:.1f} Gbit/s",
        heads=("USERS AND THEIR LLM SESSIONS", "HOW A CACHE MOVES (SHAPE)", "BETWEEN gNBs", "gNB AND ITS SERVER"),
    )


def _numbers(task: Any, env: int) -> tuple[tuple[str, str], ...]:
    """What the last step has cost, and what of it no policy can avoid, by the prices of the reward."""
    sim, prices = task.sim, task.config.reward
    begun = sim.state.world[env]["time_s"] > 0.0
    cost = -task.price()[env].sum() if begun else 0.0
    floor = 0.0 if task.config.actions.trigger == "policy" else (
        prices.interruption * sim.state.flow[env]["unavoidable_s"].sum())
    each = task.num_agents * sim.interval_s
    return ("cost per user and second", f"{cost / each:.3f}"), ("of it unavoidable", f"{floor / each:.3f}")


def _bars(task: Any, env: int) -> tuple[tuple[str, np.ndarray], ...]:
    """What the bars of a gNB mean, and how full they are in [0, 1] [C]."""
    cell, view = task.sim.state.cell[env], task.view
    loads = (("radio load", cell["load"]),
             (f"prefill queue (full: {FULL_WAIT_S:g} s)", view.prefill_wait_s[env] / FULL_WAIT_S),
             ("KV memory in use", 1.0 - view.free_memory_bytes[env] / cell["memory_bytes"]))
    return tuple((meaning, np.clip(share, 0.0, 1.0)) for meaning, share in loads)
