"""Radio: bilinear path gain, layer-3 filter, SINR under load and spectral efficiency, against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from kvroam.envs.handover.world.state import INTERRUPTED, KV
from kvroam.envs.sim.radio import efficiency, filter_weight, noise_dbm, path_gains_db

from .sim_bench import Bench


@pytest.fixture(scope="module")
def gain():
    return np.random.default_rng(0).normal(-100.0, 15.0, (7, 9, 3)).astype(np.float32)


def lookup(gain, row: float, col: float) -> list[float]:
    out = np.empty(gain.shape[2])
    path_gains_db(gain, float(row), float(col), out)
    return out.tolist()


def test_the_lookup_is_exact_at_every_grid_point(gain):
    for row in range(7):
        for col in range(9):
            assert lookup(gain, row, col) == gain[row, col].tolist()


def test_the_lookup_is_bilinear_in_between_and_clamped_outside(gain):
    generator = np.random.default_rng(1)
    rows, cols = generator.uniform(-2, 9, 500), generator.uniform(-2, 11, 500)
    got = np.array([lookup(gain, row, col) for row, col in zip(rows, cols, strict=True)])
    for cell in range(3):
        expected = map_coordinates(gain[..., cell].astype(float), [rows.clip(0, 6), cols.clip(0, 8)], order=1)
        assert got[:, cell] == pytest.approx(expected, rel=1e-6)


def test_efficiency_is_linear_interpolation_zero_below_and_flat_above():
    table = np.sort(np.random.default_rng(2).uniform(0.0, 6.0, 41)).astype(np.float32)
    grid = -10.0 + 0.5 * np.arange(41)
    sinr = np.random.default_rng(3).uniform(-20.0, 20.0, 1000)
    expected = np.interp(sinr, grid, table, left=0.0)
    assert [efficiency(table, -10.0, 0.5, x) for x in sinr] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert efficiency(table, -10.0, 0.5, 10.0) == table[-1]
    assert efficiency(table, -10.0, 0.5, -10.0) == table[0]


@pytest.mark.parametrize("k", [0.0, 4.0, 8.0, 11.0])
def test_the_filter_weight_is_that_of_the_standard_at_200_ms_and_composes(k):
    assert filter_weight(k, 0.2) == pytest.approx(0.5 ** (k / 4))
    assert (1 - filter_weight(k, 0.1)) ** 2 == pytest.approx(1 - filter_weight(k, 0.2))


def test_thermal_noise():
    assert noise_dbm(20e6, 7.0) == pytest.approx(-174 + 73.0103 + 7.0, abs=1e-4)


def test_the_filtered_rsrp_approaches_the_true_one_geometrically(city, phy):
    bench = Bench(city, phy)
    rsrp = bench.sim.state.rsrp_dbm[0, 0]
    true = rsrp.copy()
    gains = city.path_gain_db[:, int(bench.ue[0]["row"]), int(bench.ue[0]["col"])]
    assert true == pytest.approx(38.0 - 10 * np.log10(20e6 / 30e3) + gains, abs=1e-6)
    rsrp += 12.0
    bench.step(5)
    assert rsrp - true == pytest.approx(12.0 * 0.5 ** (5 * 0.1 / 0.2), rel=1e-9)


def test_the_measurement_noise_has_the_deviation_it_should_have(city, phy):
    bench = Bench(city, phy, ues=8, radio=dict(measurement_noise_db=3.0, filter_k=0.0))
    true = Bench(city, phy, ues=8).sim.state.rsrp_dbm[0]
    errors = []
    for _ in range(200):
        bench.step()
        errors.append(bench.sim.state.rsrp_dbm[0] - true)
    sample = np.array(errors)
    n = sample.size
    assert abs(sample.mean()) < 4 * 3.0 / np.sqrt(n)
    assert sample.std() == pytest.approx(3.0, rel=4 / np.sqrt(2 * n))
    flat = sample.reshape(200, -1)
    assert abs(np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]) < 4 / np.sqrt(n)


def expected_links(bench: Bench, city, phy, idle=0.2, per_ue=0.1, width=20e6, payload=4096.0):
    """SINR [dB], load per cell, time on the air [s] and SINR at a load of 0.7 [dB], with numpy."""
    ue, cells = bench.ue, len(city.path_gain_db)
    loads = np.full(cells, idle)
    np.add.at(loads, ue["radio"][ue["streaming"] & (ue["phase"] != INTERRUPTED)], per_ue)
    loads = np.minimum(loads, 1.0)
    sharing = np.bincount(ue["radio"][ue["streaming"]], minlength=cells)
    where = [ue["y"] / city.cell_size_m, ue["x"] / city.cell_size_m]
    received = np.array([10 ** ((38.0 + map_coordinates(g.astype(float), where, order=1)) / 10)
                         for g in city.path_gain_db])
    noise = 10 ** ((-174 + 10 * np.log10(width) + 7.0) / 10)
    sinr, air, monitored = [], [], []
    for u, radio in enumerate(ue["radio"]):
        others = np.delete(received[:, u] * loads, radio).sum()
        sinr.append(10 * np.log10(received[radio, u] / (others + noise)))
        fixed = np.delete(received[:, u] * 0.7, radio).sum()
        monitored.append(10 * np.log10(received[radio, u] / (fixed + noise)))
        rate = width / max(1, sharing[radio]) * np.interp(sinr[u], phy.sinr_db, phy.efficiency, left=0.0)
        air.append(min(0.5, payload / rate) if rate > 0 else 0.5)
    return np.array(sinr), loads, np.array(air), np.array(monitored)


def test_sinr_load_and_air_time_equal_a_direct_computation(city, phy):
    bench = Bench(city, phy, ues=24, radio=dict(monitoring_load=0.7, max_air_s=0.5))
    generator = np.random.default_rng(4)
    for u in range(24):
        bench.put(u, radio=int(generator.integers(0, 3)), streaming=bool(generator.integers(0, 2)))
    bench.plans["medium"] = KV
    for u in range(4):
        bench.hand_over(u, 5, 0.05)
    bench.step()
    assert (bench.ue["phase"] == INTERRUPTED).sum() == 4
    sinr, loads, air, monitored = expected_links(bench, city, phy)
    assert bench.ue["monitor_db"] == pytest.approx(monitored, rel=1e-5)
    assert bench.ue["sinr_db"] == pytest.approx(sinr, rel=1e-5)
    assert bench.cell["load"] == pytest.approx(loads, rel=1e-12)
    assert bench.ue["air_s"] == pytest.approx(air, rel=1e-4)
    assert bench.ue["sinr_db"].min() < -5 and loads.max() > 0.4


def test_the_load_of_a_cell_does_not_exceed_one(city, phy):
    bench = Bench(city, phy, ues=12)
    for u in range(12):
        bench.put(u, radio=2, streaming=True)
    bench.step()
    assert bench.cell["load"] == pytest.approx([0.2, 0.2, 1.0] + [0.2] * 6)


def test_a_link_in_outage_costs_the_longest_time_on_the_air(city, phy):
    bench = Bench(city, phy, radio=dict(max_air_s=0.5))
    far = int(np.argmin(bench.sim.state.rsrp_dbm[0, 0]))
    bench.put(0, radio=far, streaming=True)
    bench.ue[0]["x"], bench.ue[0]["y"] = city.gnb_xyz_m[8 - far]
    bench.step()
    assert bench.ue[0]["sinr_db"] < -10.0
    assert bench.ue[0]["air_s"] == 0.5


def test_one_more_ue_that_streams_disturbs_the_other_cells_by_its_share_and_no_link_monitoring(city, phy):
    quiet, loud = (Bench(city, phy, ues=4) for _ in range(2))
    for bench, streaming in ((quiet, False), (loud, True)):
        for u in range(3):
            bench.put(u, radio=u)
        bench.put(3, radio=4, streaming=streaming)
        bench.step()
    assert (loud.cell["load"] - quiet.cell["load"]).tolist() == pytest.approx([0, 0, 0, 0, 0.1, 0, 0, 0, 0])
    assert (loud.ue["sinr_db"][:3] < quiet.ue["sinr_db"][:3]).all()
    assert loud.ue["sinr_db"][3] == quiet.ue["sinr_db"][3]
    assert (loud.ue["monitor_db"] == quiet.ue["monitor_db"]).all()
