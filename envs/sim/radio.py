"""Radio: received power from Sionna's path-gain map, load-dependent SINR, and what one token costs on the air."""

from __future__ import annotations

from typing import Any

import numpy as np

from .decibels import decibels, power_of
from .jit import kernel
from .mobility import MapTables
from .params import RadioConfig
from .streams import RADIO, normals

THERMAL_NOISE_DBM_HZ = -174.0
SUBCARRIER_HZ = 30e3


@kernel
def path_gains_db(gain_db, row, col, out):
    """Bilinear path gain [dB] towards every gNB at fractional grid coordinates (row, col), clamped at the edge.

    Written into `out` [C].
    """
    height, width = gain_db.shape[0], gain_db.shape[1]
    row = min(max(row, 0.0), height - 1.0)
    col = min(max(col, 0.0), width - 1.0)
    r, c = min(int(row), height - 2), min(int(col), width - 2)
    a, b = row - r, col - c
    # Not sliced: a slice counts a reference to the map, and threads would wait for each other at the counter.
    for cell in range(out.shape[0]):
        top = gain_db[r, c, cell] * (1.0 - b) + gain_db[r, c + 1, cell] * b
        bottom = gain_db[r + 1, c, cell] * (1.0 - b) + gain_db[r + 1, c + 1, cell] * b
        out[cell] = top * (1.0 - a) + bottom * a


@kernel
def efficiency(table, low_db, step_db, sinr_db):
    """Spectral efficiency [bit/s/Hz] from the PHY table by linear interpolation; 0 below it, flat above it."""
    at = (sinr_db - low_db) / step_db
    if at < 0.0:
        return 0.0
    if at >= table.shape[0] - 1:
        return float(table[-1])
    i = int(at)
    return table[i] + (at - i) * (table[i + 1] - table[i])


@kernel
def measure(ue, p, tables: MapTables, keys, rsrp_dbm, gain_db, noise, step):
    """Measure RSRP of every UE towards every cell; layer-3 filter F = (1 - a) F + a M (TS 38.331, 5.5.3.2).

    Writes the path gains into `gain_db` [U, C], for update_links; `noise` [U, C] is scratch. Step 0
    is the first measurement, which the filter begins with.
    """
    ues, cells = rsrp_dbm.shape
    # One loop each: look-ups that wait for memory wait together.
    for u in range(ues):
        path_gains_db(tables.gain_db, (ue[u].y - p.origin_y) / p.pitch_m, (ue[u].x - p.origin_x) / p.pitch_m,
                      gain_db[u])
    if p.measurement_noise_db > 0.0:
        for u in range(ues):
            normals(keys[RADIO], u, step, tables.quantiles, noise[u])
    else:
        noise[:] = 0.0
    sent_dbm, deviation_db, weight = p.tx_power_dbm - p.subcarriers_db, p.measurement_noise_db, p.filter_a
    for u in range(ues):
        for c in range(cells):
            power = sent_dbm + gain_db[u, c] + deviation_db * noise[u, c]
            rsrp_dbm[u, c] = power if step == 0 else (1.0 - weight) * rsrp_dbm[u, c] + weight * power


@kernel
def update_load(ue, cell, p):
    """Share of the resources that each gNB uses: background plus its active UEs, at most 1."""
    for c in range(cell.shape[0]):
        cell[c].load = p.idle_load
    for u in range(ue.shape[0]):
        if ue[u].active:
            c = ue[u].radio
            cell[c].load = min(1.0, cell[c].load + p.load_per_ue)


@kernel
def update_links(ue, cell, p, tables: MapTables, gain_db, received, sharers):
    """SINR of every UE under the present loads, and the time one token spends on the air.

    Interference from gNB j is its received power times its load; the serving gNB shares its band equally among its
    active UEs. `gain_db` [U C] is what `measure` wrote, row by row, and is spent; `received` [U C] and `sharers`, int64
    [C], are scratch.
    """
    ues, cells = ue.shape[0], cell.shape[0]
    sharers[:] = 0
    for u in range(ues):
        if ue[u].active:
            sharers[ue[u].radio] += 1
    for i in range(ues * cells):
        received[i] = power_of(p.tx_power_dbm + gain_db[i])
    noise_mw = 10.0 ** (p.noise_dbm / 10.0)
    for u in range(ues):
        me, first = ue[u], u * cells
        radio, signal, interference, monitored = me.radio, 0.0, noise_mw, noise_mw
        for c in range(cells):
            power = received[first + c]
            if c == radio:
                signal = power
            else:
                interference += power * cell[c].load
                monitored += power * p.monitoring_load
        # In the place of rows that are done.
        gain_db[u], received[u] = signal / interference, signal / monitored
    for u in range(ues):
        gain_db[u], received[u] = decibels(gain_db[u]), decibels(received[u])
    for u in range(ues):
        me = ue[u]
        me.sinr_db, me.monitor_db = gain_db[u], received[u]
        rate = p.bandwidth_hz / max(1, sharers[me.radio]) * efficiency(
            tables.efficiency, p.sinr_low_db, p.sinr_step_db, me.sinr_db)
        me.air_s = min(p.max_air_s, p.token_payload_bits / rate) if rate > 0.0 else p.max_air_s


def noise_dbm(bandwidth_hz: float, noise_figure_db: float) -> float:
    """Thermal noise over the band plus the receiver's noise figure [dBm]."""
    return THERMAL_NOISE_DBM_HZ + 10.0 * float(np.log10(bandwidth_hz)) + noise_figure_db


def filter_weight(k: float, interval_s: float) -> float:
    """Weight a of a new measurement per interval: a = 1/2^(k/4) at the 200 ms the standard assumes, rescaled."""
    return 1.0 - (1.0 - 0.5 ** (k / 4.0)) ** (interval_s / 0.2)


def radio_params(config: RadioConfig, phy, interval_s: float) -> dict[str, Any]:
    """RADIO_PARAMS of a configuration and a PHY table with `sinr_db` [N] (uniform)."""
    return dict(
        tx_power_dbm=config.tx_power_dbm, noise_dbm=noise_dbm(config.bandwidth_hz, config.noise_figure_db),
        subcarriers_db=10.0 * np.log10(config.bandwidth_hz / SUBCARRIER_HZ), bandwidth_hz=config.bandwidth_hz,
        idle_load=config.idle_load, load_per_ue=config.load_per_ue, token_payload_bits=config.token_payload_bits,
        max_air_s=config.max_air_s, filter_a=filter_weight(config.filter_k, interval_s),
        measurement_noise_db=config.measurement_noise_db, sinr_low_db=float(phy.sinr_db[0]),
        sinr_step_db=float(phy.sinr_db[1] - phy.sinr_db[0]),
    )
