"""Backhaul: rates of concurrent transfers, weighted max-min fair over egress and ingress links."""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel
from .params import BackhaulConfig
from .streams import LINK_EGRESS_VARIES, LINK_INGRESS_VARIES, WORLD, uniform


@kernel
def vary_capacities(cell, p, keys, period):
    """Set the capacities of every gNB in a period: nominal times a factor log-uniform in [1/v, v]."""
    for c in range(cell.shape[0]):
        out = uniform(keys[WORLD], c, LINK_EGRESS_VARIES, period)
        back = uniform(keys[WORLD], c, LINK_INGRESS_VARIES, period)
        cell[c].egress_bps = cell[c].egress_nominal_bps * p.variation ** (2.0 * out - 1.0)
        cell[c].ingress_bps = cell[c].ingress_nominal_bps * p.variation ** (2.0 * back - 1.0)


@kernel
def weighted_fair_rates(source, target, weight, egress_bps, ingress_bps, pool, rate_bps, room_bps, demand):
    """Weighted max-min fair rates by progressive filling, written into `rate_bps`.

    All rates grow as weight times a common level until a link is full; the transfers on that link are frozen and the
    rest go on. Exact up to rounding; at most one round per link.

    Args:
        source, target: cells of each transfer, int [F].
        weight: >= 0, float [F]; 0 waits (rate 0).
        egress_bps, ingress_bps: capacities, float [C] [bit/s].
        pool: with true, all transfers share the single capacity egress_bps[0].
        rate_bps: out, float [F] [bit/s].
        room_bps, demand: scratch, float [2 C].
    Source: Bertsekas and Gallager, Data Networks, section 6.5.2 (max-min flow control), with weights.
    """
    flows, cells = source.shape[0], egress_bps.shape[0]
    rate_bps[:] = -1.0
    for c in range(cells):
        room_bps[c], room_bps[cells + c] = egress_bps[c], ingress_bps[c]
    open_flows = 0
    for f in range(flows):
        if weight[f] > 0.0:
            open_flows += 1
        else:
            rate_bps[f] = 0.0
    while open_flows > 0:
        demand[:] = 0.0
        for f in range(flows):
            if rate_bps[f] < 0.0:
                demand[0 if pool else source[f]] += weight[f]
                if not pool:
                    demand[cells + target[f]] += weight[f]
        level, tight = np.inf, -1
        for link in range(2 * cells):
            if demand[link] > 0.0 and room_bps[link] / demand[link] < level:
                level, tight = room_bps[link] / demand[link], link
        for f in range(flows):
            if rate_bps[f] >= 0.0:
                continue
            out, back = (0, 0) if pool else (source[f], cells + target[f])
            if out == tight or back == tight:
                rate_bps[f] = level * weight[f]
                open_flows -= 1
                room_bps[out] = max(0.0, room_bps[out] - rate_bps[f])
                if not pool:
                    room_bps[back] = max(0.0, room_bps[back] - rate_bps[f])


def link_params(config: BackhaulConfig) -> dict[str, Any]:
    """LINK_PARAMS of a configuration."""
    return dict(
        capacity_bps=config.capacity_bps, capacity_spread=config.capacity_spread, hop_s=config.hop_s,
        variation=config.variation, variation_period_s=config.variation_period_s, pool=int(config.topology == "pool"),
        forwarding=config.hops,
    )
