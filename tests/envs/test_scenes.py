"""Scenes and the link curve: what loads is usable, what is damaged is refused, what is built is repeatable."""

import dataclasses
import json
import shutil
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from kvroam.envs import parallel_env, scenes
from kvroam.envs.scenes import DIRECTIONS, assets, background, bank, phy, raytrace, routes
from kvroam.envs.scenes.__main__ import main
from kvroam.envs.scenes.build import build, spec_for
from kvroam.errors import SceneError

CITIES = [name for name in scenes.available() if name not in bank.names()]

needs_ray_tracer = pytest.mark.skipif(
    (raytrace.llvm_library() or ("", 0))[1] < raytrace.MIN_LLVM,
    reason=f"libllvm{raytrace.MIN_LLVM} is not installed; older ones abort the process in Sionna RT",
)


@pytest.fixture(scope="module", params=CITIES)
def scene(request: pytest.FixtureRequest) -> scenes.Scene:
    return scenes.load(request.param)


def four_connected(mask: np.ndarray) -> bool:
    start = tuple(np.argwhere(mask)[0])
    seen, queue = {start}, deque([start])
    while queue:
        row, column = queue.popleft()
        for cell in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            inside = 0 <= cell[0] < mask.shape[0] and 0 <= cell[1] < mask.shape[1]
            if inside and mask[cell] and cell not in seen:
                seen.add(cell)
                queue.append(cell)
    return len(seen) == int(mask.sum())


def follow(street: np.ndarray, field: np.ndarray, cell: tuple[int, int]) -> tuple[int, int]:
    """Walk along `field` until it says arrived, checking that every step stays on the street and cuts no corner."""
    row, column = cell
    for _ in range(int(street.sum())):
        code = int(field[row, column])
        if code == 8:
            return row, column
        down, right = DIRECTIONS[code]
        assert street[row + down, column] or not right
        assert street[row, column + right] or not down
        row, column = row + down, column + right
        assert street[row, column]
    raise AssertionError("the walk never arrived")


def test_arrays_have_the_documented_types_and_are_finite(scene: scenes.Scene) -> None:
    gnbs, rows, columns = scene.path_gain_db.shape
    assert scene.path_gain_db.dtype == np.float32
    assert np.isfinite(scene.path_gain_db).all()
    assert scene.street.dtype == bool
    assert scene.street.shape == (rows, columns)
    assert scene.gnb_xyz_m.dtype == np.float64
    assert scene.gnb_xyz_m.shape == (gnbs, 3)
    assert scene.destinations.dtype == np.int16
    assert scene.next_direction.dtype == np.uint8
    assert scene.next_direction.shape == (len(scene.destinations), rows, columns)
    assert scene.cell_size_m == scene.manifest["spec"]["cell_size_m"]
    assert not scene.path_gain_db.flags.writeable


def test_street_is_one_connected_piece_and_holds_every_destination(scene: scenes.Scene) -> None:
    assert four_connected(scene.street)
    assert scene.street[scene.destinations[:, 0], scene.destinations[:, 1]].all()
    assert len({tuple(cell) for cell in scene.destinations.tolist()}) == len(scene.destinations)


def test_following_directions_from_random_cells_reaches_the_destination(scene: scenes.Scene) -> None:
    rng = np.random.default_rng(0)
    cells = np.argwhere(scene.street)
    for row, column in cells[rng.integers(len(cells), size=200)]:
        index = int(rng.integers(len(scene.destinations)))
        end = follow(scene.street, scene.next_direction[index], (int(row), int(column)))
        assert end == tuple(scene.destinations[index])


def test_directions_are_defined_exactly_on_the_street(scene: scenes.Scene) -> None:
    assert ((scene.next_direction != 255) == scene.street).all()
    assert ((scene.next_direction == 8).sum(axis=(1, 2)) == 1).all()


def test_gains_fall_with_distance_and_stay_below_the_ceiling(scene: scenes.Scene) -> None:
    rows, columns = np.nonzero(scene.street)
    x = scene.origin_m[0] + columns * scene.cell_size_m
    y = scene.origin_m[1] + rows * scene.cell_size_m
    low, high = scene.manifest["grid"]["street_height_m"]
    # On a hillside the height of a street cell is not in the asset: it is taken as that of the ground below the mast.
    level, slack = np.full(len(scene.gnb_xyz_m), low), 0.05
    if high > low:
        level, slack = scene.gnb_xyz_m[:, 2] - scene.manifest["spec"]["mast_m"], 1.5
    for gain, (gx, gy, gz), ground in zip(scene.path_gain_db, scene.gnb_xyz_m, level, strict=True):
        distance = np.sqrt((x - gx) ** 2 + (y - gy) ** 2 + (gz - ground - 1.5) ** 2)
        wavelength = 299_792_458.0 / 3.5e9
        friis_db = 20.0 * np.log10(wavelength / (4.0 * np.pi * distance))
        assert (gain[rows, columns] <= friis_db + 6.0 + slack).all()
        here = gain[rows, columns]
        order = np.argsort(distance)
        # Only the nearest streets: an avenue of Paris reaches farther than the blocks beside it.
        near, far = order[: len(order) // 12], order[-(len(order) // 3) :]
        assert np.median(here[near]) > np.median(here[far]) + 5.0
        # The mast stands in the street, so the cells around it are in sight: a map shifted or transposed against its
        # coordinates would not show free space there.
        assert (here[order[:8]] >= friis_db[order[:8]] - 3.0).all()


def test_every_gnb_is_the_best_one_somewhere(scene: scenes.Scene) -> None:
    best = scene.path_gain_db[:, scene.street].argmax(axis=0)
    share = np.bincount(best, minlength=len(scene.gnb_xyz_m)) / best.size
    # One site of Florence stands in an enclosed court and serves little else.
    assert share.min() >= 0.15 / len(share)
    assert share == pytest.approx(scene.manifest["best_server_share"], abs=2e-3)


@pytest.mark.parametrize(("name", "neighbour_m"), [
    ("munich", 300.0), ("etoile", 260.0), ("florence", 290.0), ("san_francisco", 320.0),
])  # fmt: skip
def test_a_grid_of_gnbs_covers_each_city_with_measured_noise(name: str, neighbour_m: float) -> None:
    city = scenes.load(name)
    assert 7 <= len(city.gnb_xyz_m) <= 19
    spacing = np.linalg.norm(city.gnb_xyz_m[:, None] - city.gnb_xyz_m[None], axis=-1)
    np.fill_diagonal(spacing, np.inf)
    assert spacing.min() > 100.0 and spacing.min(axis=1).max() < neighbour_m
    assert city.manifest["noise"]["two_builds_p95_db"] < 2.5
    assert city.manifest["noise"]["serving_link_p95_db"] < 1.5
    assert "OpenStreetMap" in city.manifest["attribution"]


@pytest.mark.parametrize("name", CITIES)
def test_a_city_ships_what_the_command_without_options_builds(name: str) -> None:
    assert json.loads(json.dumps(dataclasses.asdict(spec_for(name)))) == scenes.load(name).manifest["spec"]


def test_all_assets_together_are_small() -> None:
    assert sum(file.stat().st_size for file in assets.ASSETS.iterdir()) < 15_000_000


def test_unknown_name_lists_the_available_ones() -> None:
    with pytest.raises(SceneError, match=r"'atlantis'.*munich, .*simple_street_canyon"):
        scenes.load("atlantis")


def test_altered_asset_is_refused_with_both_checksums(tmp_path: Path) -> None:
    for suffix in ("npz", "json"):
        name = f"simple_street_canyon.{suffix}"
        shutil.copyfile(assets.ASSETS / name, tmp_path / name)
    npz = tmp_path / "simple_street_canyon.npz"
    assert scenes.load(npz).name == "simple_street_canyon"
    content = bytearray(npz.read_bytes())
    content[len(content) // 2] ^= 1
    npz.write_bytes(content)
    expected = json.loads(npz.with_suffix(".json").read_text())["npz_sha256"][:16]
    with pytest.raises(SceneError, match=rf"sha256 .*manifest says {expected}"):
        scenes.load(npz)


def test_asset_without_manifest_or_arrays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"lost\.npz does not exist"):
        scenes.load(tmp_path / "lost.npz")
    (tmp_path / "lost.npz").write_bytes(b"x")
    with pytest.raises(SceneError, match=r"lost\.npz has no manifest: lost\.json .* must lie beside it"):
        scenes.load(tmp_path / "lost.npz")
    (tmp_path / "lost.json").write_text("{}")
    with pytest.raises(SceneError, match=r"lost\.json is not a readable manifest"):
        scenes.load(tmp_path / "lost.npz")
    assets.write(tmp_path / "other.npz", {"street": np.ones((2, 2), bool)}, {})
    with pytest.raises(SceneError, match="does not hold the arrays"):
        scenes.load(tmp_path / "other.npz")
    with pytest.raises(SceneError, match="does not hold the arrays sinr_db, efficiency"):
        scenes.load_phy_table(tmp_path / "other.npz")


def test_arrays_of_different_shapes_are_refused(tmp_path: Path) -> None:
    arrays = scenes.load("simple_street_canyon").to_arrays()
    assets.write(tmp_path / "bad.npz", arrays | {"street": arrays["street"][:-1]}, {"name": "bad"})
    with pytest.raises(SceneError, match=r"street has shape .* needs"):
        scenes.load(tmp_path / "bad.npz")


@pytest.mark.parametrize(("key", "value", "message"), [
    ("gnb_xyz_m", np.zeros((0, 3)), r"gnb_xyz_m holds no gNB"),
    ("gnb_xyz_m", np.full((3, 3), np.nan), r"gnb_xyz_m holds 9 numbers that are not finite"),
    ("path_gain_cdb", np.full((3, 24, 37), np.inf), r"path_gain_db holds 2664 numbers that are not finite"),
    ("origin_m", np.array([0.0, np.nan]), r"origin_m holds 1 numbers"),
    ("cell_size_m", np.array(0.0), r"cell_size_m is 0.0"),
    ("street", np.zeros((24, 37), bool), r"street needs two cells"),
    ("destinations", np.full((12, 2), 99, np.int16), r"destinations holds a cell that is not on the street"),
    ("next_direction", np.zeros((12, 24, 37), np.uint8), r"next_direction leads off the street"),
])  # fmt: skip
def test_contents_that_would_strand_a_ue_are_refused(
    key: str, value: np.ndarray, message: str, tmp_path: Path
) -> None:
    arrays = scenes.load("simple_street_canyon").to_arrays()
    if key == "gnb_xyz_m" and not len(value):
        arrays["path_gain_cdb"] = arrays["path_gain_cdb"][:0]
    assets.write(tmp_path / "bad.npz", arrays | {key: value}, {"name": "bad"})
    with pytest.raises(SceneError, match=rf"bad\.npz: {message}.*: build it again"):
        scenes.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("name", ["simple_street_canyon", "etoile", "florence", "san_francisco", "umi-04", "uma-00"])
def test_the_environment_runs_on_worlds_of_any_number_of_cells(name: str) -> None:
    env = parallel_env({"scene": name, "num_ues": 4, "scoring": {"mode": "none"}}, max_cycles=30)
    observations, _ = env.reset(seed=3)
    scene = scenes.load(name)
    while env.agents:
        observations, _, _, _, _ = env.step({a: env.action_space(a).sample() for a in env.agents})
        assert all(np.isfinite(row).all() and row.shape == env.observation_space("ue_0").shape
                   for row in observations.values())
        ue = env.core.task.sim.state.ue[0]
        assert scene.street[ue["row"], ue["col"]].all()
    assert env.core.task.sim.num_cells == len(scene.gnb_xyz_m)


def test_shortest_routes_cost_what_brute_force_finds() -> None:
    rng = np.random.default_rng(3)
    street = routes.largest_component(rng.random((9, 11)) > 0.3)
    target = routes.spread_destinations(street, 1)
    field = routes.next_directions(street, target)[0]
    rows, columns = street.shape
    wall = np.argwhere(~np.pad(street, 1, mode="edge")) - 1
    cost = {
        (r, c): 1.0 + 2.0 / min(float(np.hypot(*(w - (r, c)))) for w in wall) for r, c in np.argwhere(street).tolist()
    }

    def price(a: tuple[int, int], b: tuple[int, int]) -> float:
        return 0.5 * (cost[a] + cost[b]) * float(np.hypot(a[0] - b[0], a[1] - b[1]))

    def neighbours(cell: tuple[int, int]) -> list[tuple[int, int]]:
        around = [(cell[0] + d, cell[1] + r) for d in (-1, 0, 1) for r in (-1, 0, 1) if d or r]
        return [n for n in around if n in cost and (n[0], cell[1]) in cost and (cell[0], n[1]) in cost]

    goal = (int(target[0, 0]), int(target[0, 1]))
    best = dict.fromkeys(cost, np.inf) | {goal: 0.0}
    for _ in range(rows * columns):
        best = {c: min([best[c]] + [best[n] + price(c, n) for n in neighbours(c)]) for c in cost}
    for cell in cost:
        walked, here = 0.0, cell
        while here != goal:
            down, right = DIRECTIONS[field[here]]
            there = (here[0] + down, here[1] + right)
            walked, here = walked + price(here, there), there
        assert walked == pytest.approx(best[cell])


def test_shadowing_has_the_standard_deviation_and_correlation_of_the_standard() -> None:
    field = background.shadowing_db(40, (100, 100), 5.0, np.random.default_rng(5))
    assert field.std() == pytest.approx(7.82, rel=0.03)
    for lag in (1, 2, 4):
        measured = (field[:, lag:] * field[:, :-lag]).mean() / field.var()
        assert measured == pytest.approx(np.exp(-5.0 * lag / 13.0), abs=0.03)
    assert abs((field[0] * field[1]).mean() / field.var()) < 0.1


def test_background_is_the_path_loss_of_the_standard() -> None:
    # TR 38.901 table 7.4.1-1 by hand: 22.4 + 35.3 x 2 + 21.3 log10(3.5) = 104.59 dB at 100 m.
    assert background.umi_nlos_gain_db(np.array([100.0]), 3.5e9, 1.5)[0] == pytest.approx(-104.59, abs=0.01)
    assert background.free_space_gain_db(np.array([100.0]), 3.5e9)[0] == pytest.approx(-83.33, abs=0.01)


def test_link_curve_never_falls_and_is_what_sionna_computes() -> None:
    table = scenes.load_phy_table()
    assert np.allclose(np.diff(table.sinr_db), table.sinr_db[1] - table.sinr_db[0], atol=1e-4)
    assert (table.sinr_db[0], table.sinr_db[-1]) == (-10.0, 30.0)
    assert (np.diff(table.efficiency) >= 0.0).all()
    assert table.efficiency[0] == 0.0 and 5.0 < table.efficiency[-1] < 6.0
    # Shannon's bound at each SINR.
    assert (table.efficiency <= np.log2(1.0 + 10.0 ** (table.sinr_db / 10.0))).all()
    probes = np.array([-3.0, 0.0, 4.5, 10.0, 14.2, 19.0, 25.0])
    sampled = np.sort(np.concatenate([np.linspace(-6.0, 30.0, 361), probes]))
    goodput = phy.goodput_per_re(sampled)
    expected = [goodput[sampled <= probe].max() for probe in probes]
    assert np.interp(probes, table.sinr_db, table.efficiency) == pytest.approx(expected, abs=0.02)


@needs_ray_tracer
def test_building_twice_gives_equal_files_that_load(tmp_path: Path) -> None:
    spec = spec_for("simple_street_canyon", samples_per_pass=100_000, passes=2, destinations=4)
    first = build(spec, tmp_path / "a")
    second = build(spec, tmp_path / "b")
    assert first == second
    assert (tmp_path / "a" / "simple_street_canyon.npz").read_bytes() == (
        tmp_path / "b" / "simple_street_canyon.npz"
    ).read_bytes()
    built, shipped = scenes.load(tmp_path / "a" / "simple_street_canyon.npz"), scenes.load("simple_street_canyon")
    assert (built.street == shipped.street).all()
    assert len(built.destinations) == 4
    strong = shipped.path_gain_db >= shipped.path_gain_db.max(axis=0) - 10.0
    assert np.median(np.abs(built.path_gain_db - shipped.path_gain_db)[strong]) < 1.0


@needs_ray_tracer
def test_scene_given_by_path_builds_like_the_one_given_by_name(tmp_path: Path) -> None:
    import sionna.rt as rt

    small = {"samples_per_pass": 20_000, "passes": 2, "destinations": 4, "inter_site_m": 70.0, "mast_m": 10.0}
    named = build(spec_for("simple_street_canyon", **small), tmp_path / "named")
    given = build(spec_for(rt.scene.simple_street_canyon, **small), tmp_path / "given")
    assert given["npz_sha256"] == named["npz_sha256"]
    assert given["spec"]["source"] == "simple_street_canyon.xml"


@needs_ray_tracer
def test_a_mitsuba_file_of_the_users_own_builds(tmp_path: Path) -> None:
    box = "".join(
        f'''<shape type="cube" id="house_{n}"><transform name="to_world"><scale x="12" y="25" z="10"/>
        <translate x="{x}" y="0" z="10"/></transform><ref id="wall" name="bsdf"/></shape>'''
        for n, x in enumerate((-40, 0, 40))
    )
    # Ground and houses share a material, which Sionna would merge into one object.
    (tmp_path / "village.xml").write_text(f'''<scene version="2.1.0">
        <bsdf type="itu-radio-material" id="wall"><string name="type" value="concrete"/>
        <float name="thickness" value="0.2"/></bsdf>
        <shape type="rectangle" id="ground"><transform name="to_world"><scale x="80" y="60"/></transform>
        <ref id="wall" name="bsdf"/></shape>{box}</scene>''')
    options = ["--inter-site", "45", "--mast", "8", "--samples", "20000", "--passes", "2", "--destinations", "4"]
    assert main(["build", str(tmp_path / "village.xml"), *options, "--out", str(tmp_path)]) == 0
    village = scenes.load(tmp_path / "village.npz")
    assert village.street.shape == (24, 32) and len(village.gnb_xyz_m) >= 2
    row, column = np.indices((24, 32))
    x, y = village.origin_m[0] + 5.0 * column, village.origin_m[1] + 5.0 * row
    houses = (np.abs(x[..., None] - [-40.0, 0.0, 40.0]) < 12.0).any(axis=-1) & (np.abs(y) < 25.0)
    assert (village.street == ~houses).all()
    assert "attribution" not in village.manifest


@needs_ray_tracer
def test_terrain_map_of_flat_ground_is_the_plane_map() -> None:
    scene = raytrace.open_scene("simple_street_canyon", 3.5e9, 20e6)
    raytrace.place_transmitters(scene, np.array([[-50.0, 0.0, 12.0], [40.0, -3.0, 12.0]]))
    lower, solver = np.array([-80.0, -8.0]), {"samples_per_tx": 300_000, "max_depth": 2, "seed": 3}
    plane = raytrace.plane_path_gain(scene, lower, (3, 30), 1.5, 5.0, **solver)
    terrain = raytrace.terrain_path_gain(scene, lower, np.full((4, 31), 1.5), 5.0, **solver)
    assert plane.shape == terrain.shape == (2, 3, 30)
    assert np.abs(10.0 * np.log10(terrain / plane)).max() < 0.1


@needs_ray_tracer
def test_ground_is_found_below_buildings_and_sight_ends_at_walls() -> None:
    scene = raytrace.open_scene("simple_street_canyon", 3.5e9, 20e6)
    x, y = np.array([0.0, 0.0]), np.array([0.0, 20.0])
    assert raytrace.ground_height_m(scene, x, y) == pytest.approx([-0.03, -0.03], abs=0.01)
    street, roof = raytrace.surface_height_m(scene, x, y)
    assert street == pytest.approx(-0.03, abs=0.01) and roof > 20.0
    mast = np.array([[0.0, 0.0, 10.0]] * 2)
    ue = np.array([[25.0, 0.0, 1.5], [0.0, 50.0, 1.5]])
    assert raytrace.line_of_sight(scene, mast, ue).tolist() == [True, False]


@needs_ray_tracer
def test_commands_report_what_the_user_can_mend(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["build", "atlantis", "--out", str(tmp_path)]) == 2
    assert "'atlantis'" in capsys.readouterr().err
    assert main(["build", str(tmp_path / "none.xml"), "--out", str(tmp_path)]) == 2
    assert "is not a file" in capsys.readouterr().err
    assert main(["build", "munich", "--window", "5000", "0", "6000", "900", "--out", str(tmp_path)]) == 2
    assert "spans x" in capsys.readouterr().err
    assert main(["build", "simple_street_canyon", "--inter-site", "500", "--out", str(tmp_path)]) == 2
    assert "--inter-site" in capsys.readouterr().err
    assert main(["build", "munich", "--passes", "3", "--out", str(tmp_path)]) == 2
    assert "odd" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.npz"))


def test_old_llvm_is_refused_before_anything_is_traced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / "libLLVM-15.so.1"
    library.touch()
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", str(library))
    with pytest.raises(SceneError, match=r"LLVM 15 .* 19 is needed: install libllvm19"):
        raytrace.require_ray_tracer()


def test_show_draws_a_picture(tmp_path: Path) -> None:
    assert main(["show", "simple_street_canyon", "--out", str(tmp_path / "map.png")]) == 0
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
