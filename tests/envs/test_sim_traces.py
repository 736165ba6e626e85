"""Trace files: what is read is what is simulated, and every defect is refused with its line and column."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kvroam.envs import Core, make_core
from kvroam.envs.handover.config import resolve
from kvroam.envs.handover.trace import command
from kvroam.envs.handover.world.simulator import idle_plans
from kvroam.envs.sim.params import MobilityConfig
from kvroam.envs.sim.streams import keys
from kvroam.envs.sim.traces import tracks_of
from kvroam.errors import ConfigError

SCENE = "simple_street_canyon"


def write(path, rows, header="time,id,x,y"):
    """A trace file of (time, id, x, y)."""
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def two(until_s: float = 10.0, step_s: float = 0.5):
    """Two ids that go east along the street y = 0 of the grid city."""
    return [(t, name, 10.0 + t * v, 0.0) for t in np.arange(0.0, until_s + 1e-9, step_s)
            for name, v in (("a", 8.0), ("b", 4.0))]


def tracks(path, city, num_ues=2, interval_s=0.1, episode_s=5.0, **fields):
    return tracks_of(MobilityConfig(trace=str(path), **fields), city, num_ues=num_ues, interval_s=interval_s,
                     episode_s=episode_s)


def test_positions_are_linear_between_the_rows_at_every_decision_instant(tmp_path, city):
    rows = [(0, "a", 0, 0), (0.7, "a", 5, 0), (1.1, "a", 5, 2), (2.0, "a", 0, 0)]
    found = tracks(write(tmp_path / "t.csv", rows), city, num_ues=1, interval_s=0.1, episode_s=1.0)
    assert found.positions_m.shape == (1, 21, 2) and found.starts == 11
    for k, (x, y) in enumerate(found.positions_m[0]):
        t = 0.1 * k
        i = next(i for i in range(3) if rows[i][0] - 1e-9 <= t <= rows[i + 1][0] + 1e-9)
        share = (t - rows[i][0]) / (rows[i + 1][0] - rows[i][0])
        assert x == pytest.approx(rows[i][2] + share * (rows[i + 1][2] - rows[i][2]))
        assert y == pytest.approx(rows[i][3] + share * (rows[i + 1][3] - rows[i][3]))


@pytest.mark.parametrize(("ids", "order"), [(["10", "9", "2"], ["2", "9", "10"]), (["10", "b", "2"], ["10", "2", "b"])])
def test_ues_follow_the_ids_in_order(tmp_path, city, ids, order):
    rows = [(t, name, 5.0 * i, 0.0) for t in (0.0, 0.5, 1.0) for i, name in enumerate(ids)]
    found = tracks(write(tmp_path / "t.csv", rows), city, num_ues=3, episode_s=1.0)
    assert found.positions_m[:, 0, 0].tolist() == [5.0 * ids.index(name) for name in order]


def test_the_columns_may_stand_in_any_order(tmp_path, city):
    rows = [(y, x, name, t) for t, name, x, y in two()]
    one = tracks(write(tmp_path / "t.csv", rows, "y, x, id, time"), city)
    other = tracks(write(tmp_path / "u.csv", two()), city)
    assert (one.positions_m == other.positions_m).all()


def test_only_the_time_in_which_all_are_there_is_used(tmp_path, city):
    rows = [r for r in two() if not (r[1] == "b" and r[0] < 2.0) and not (r[1] == "a" and r[0] > 9.0)]
    found = tracks(write(tmp_path / "t.csv", rows), city)
    assert found.starts == 71 - 50
    assert found.positions_m[:, 0, 0] == pytest.approx([10 + 2 * 8, 10 + 2 * 4])
    with pytest.raises(ConfigError, match=r"column time: the first 2 ids are there together for 7 s only .*episode_s"):
        tracks(tmp_path / "t.csv", city, episode_s=7.2)


def edit(k: int, **fields):
    """The good rows with fields of row k changed; its line in the file."""
    rows = [dict(zip(("time", "id", "x", "y"), row, strict=True)) for row in two()]
    rows[k] |= fields
    return [tuple(row.values()) for row in rows], k + 2


@pytest.mark.parametrize(("k", "fields", "where", "what"), [
    (6, dict(x="east"), "x", "not a number"), (6, dict(y="nan"), "y", "not finite"),
    (3, dict(time="inf"), "time", "not finite"), (8, dict(time=0.25), "time", "sort the rows"),
    (9, dict(id="a"), "id", "already"), (7, dict(y=50.0), "x, y", "off_street_m"),
    (0, dict(x=-300.0), "x, y", "off_street_m"), (5, dict(x=1e300), "x, y", "off_street_m")])
def test_a_bad_row_is_refused_with_its_line_and_column(tmp_path, city, k, fields, where, what):
    rows, line = edit(k, **fields)
    path = write(tmp_path / "t.csv", rows)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}:{line}: column {where}: .*{what}"):
        tracks(path, city)


def test_a_gap_is_refused_at_the_row_after_it(tmp_path, city):
    rows = [r for r in two() if not (r[1] == "b" and 3.0 < r[0] < 5.0)]
    path = write(tmp_path / "t.csv", rows)
    line = 2 + rows.index(next(r for r in rows if r[1] == "b" and r[0] == 5.0))
    with pytest.raises(ConfigError, match=f":{line}: column time: id 'b' was last seen 2 s before.*max_gap_s"):
        tracks(path, city)
    assert tracks(path, city, max_gap_s=2.0).starts == 51


@pytest.mark.parametrize(("header", "message"), [
    ("time,id,x,z", r":1: column z: unknown column"), ("Time,id,x,y", r":1: column Time: .*did you mean 'time'"),
    ("time,id,x", r":1: column y: stands 0 times"), ("time,id,x,x,y", r":1: column x: stands 2 times")])
def test_a_bad_header_is_refused(tmp_path, city, header, message):
    with pytest.raises(ConfigError, match=message):
        tracks(write(tmp_path / "t.csv", two(), header), city)


def test_other_files_are_refused(tmp_path, city):
    with pytest.raises(ConfigError, match="cannot be read"):
        tracks(tmp_path / "absent.csv", city)
    with pytest.raises(ConfigError, match="no rows"):
        tracks(write(tmp_path / "empty.csv", []), city)
    with pytest.raises(ConfigError, match=":2: 2 values, needs 4"):
        tracks(write(tmp_path / "short.csv", [(0, "a")]), city)
    with pytest.raises(ConfigError, match=r"2 different ids for 3 UEs.*num_ues"):
        tracks(write(tmp_path / "two.csv", two()), city, num_ues=3)


@pytest.mark.parametrize(("tolerance_m", "away_m", "accepted"), [
    (0.0, 2.4, True), (0.0, 2.6, False), (5.0, 7.4, True), (5.0, 7.6, False), (7.0, 9.4, True),
    (7.0, 9.6, False), (20.0, 22.4, True), (20.0, 22.6, False)])
def test_the_tolerance_counts_from_the_edge_of_the_street_cells(tmp_path, city, tolerance_m, away_m, accepted):
    rows = [(t, "a", 50.0, away_m) for t in (0.0, 1.0)]
    path = write(tmp_path / "t.csv", rows)
    if accepted:
        assert tracks(path, city, num_ues=1, episode_s=1.0, off_street_m=tolerance_m).starts == 1
    else:
        with pytest.raises(ConfigError, match="off_street_m"):
            tracks(path, city, num_ues=1, episode_s=1.0, off_street_m=tolerance_m)


def core(**mobility) -> Core:
    config = resolve({"scene": SCENE, "num_ues": 5, "episode_s": 8.0, "scoring": {"mode": "none"},
                      "mobility": mobility})
    return make_core(config)


def course(made: Core, seed: int, steps: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities at the reset and after every step, [T + 1, U, 2] each."""
    made.reset([seed])
    places, speeds = [made.view.position_m[0]], [made.view.velocity_mps[0]]
    for _ in range(steps):
        made.task.sim.advance(idle_plans(1, 5))
        places.append(made.view.position_m[0])
        speeds.append(made.view.velocity_mps[0])
    return np.array(places), np.array(speeds)


def test_the_exported_walkers_walk_again(tmp_path):
    path = tmp_path / "t.csv"
    assert command.main([SCENE, "--out", str(path), "--seed", "4", "--ues", "5", "--duration", "8"]) == 0
    expected, velocity = course(core(), 4)
    got, heading = course(core(trace=str(path)), 9)
    assert np.ptp(expected, axis=0).max() > 20.0
    assert got == pytest.approx(expected, abs=6e-4)
    assert heading == pytest.approx(velocity, abs=0.02)


def test_a_long_trace_begins_where_the_seed_says(tmp_path):
    path = tmp_path / "t.csv"
    assert command.main([SCENE, "--out", str(path), "--seed", "4", "--ues", "5", "--duration", "30"]) == 0
    made, whole = core(trace=str(path)), tracks_of(
        MobilityConfig(trace=str(path)), core().task.sim.scene, num_ues=5, interval_s=0.1, episode_s=8.0)
    assert whole.starts == 301 - 80
    begins = set()
    for seed in range(8):
        got, velocity = course(made, seed, 80)
        begin = int(made.task.sim.state.ue["sample"][0, 0]) - 80
        assert (got == np.moveaxis(whole.positions_m[:, begin:begin + 81], 0, 1)).all()
        back = whole.positions_m[:, begin] - whole.positions_m[:, max(begin - 1, 0)]
        assert velocity[0] == pytest.approx(back / 0.1, abs=1e-9)
        assert (keys(seed) == made.task.sim.state.keys[0]).all()
        begins.add(begin)
    assert len(begins) > 4 and max(begins) <= 220


def test_a_trace_is_reproducible_and_ends_in_standing_still(tmp_path):
    path = tmp_path / "t.csv"
    command.main([SCENE, "--out", str(path), "--seed", "4", "--ues", "5", "--duration", "8"])
    one, _ = course(core(trace=str(path)), 1, 100)
    two_, _ = course(core(trace=str(path)), 1, 100)
    assert (one == two_).all()
    assert (one[80:] == one[80]).all()


def test_the_export_refuses_a_duration_below_its_step(tmp_path, capsys):
    assert command.main([SCENE, "--out", str(tmp_path / "t.csv"), "--duration", "0.01"]) == 2
    assert "duration_s is 0.01" in capsys.readouterr().err
