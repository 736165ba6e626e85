"""The statistical scenes against the standard: its formulas through Sionna, its statistics through closed forms."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erfinv
from scipy.stats import multivariate_normal, norm

from kvroam.envs import scenes
from kvroam.envs.scenes import assets, background, bank, tr38901
from kvroam.envs.scenes.__main__ import main
from kvroam.errors import SceneError

HZ = 3.5e9


def many_links(scenario: str, distance_m: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """State and gain of 60 sites that are `distance_m` away from every one of 100 x 100 cells."""
    spec = bank.spec(f"{scenario}-00")
    distance = np.full((60, 100, 100), distance_m)
    return bank.links(spec, distance, np.random.default_rng(seed), np.random.default_rng(seed + 1))


@pytest.mark.parametrize("name", ["umi", "uma"])
def test_path_loss_and_sight_are_those_of_sionna(name: str) -> None:
    import torch
    from sionna.phy.channel.tr38901 import Antenna, UMa, UMi

    scenario = tr38901.SCENARIOS[name]
    antenna = Antenna(
        polarization="single", polarization_type="V", antenna_pattern="omni", carrier_frequency=HZ, device="cpu"
    )
    model = {"umi": UMi, "uma": UMa}[name](
        carrier_frequency=HZ, o2i_model="low", ut_array=antenna, bs_array=antenna, direction="downlink", device="cpu"
    )
    ground = np.array([10.0, 17.0, 18.0, 40.0, 90.0, 200.0, 450.0, 1200.0, 3000.0])
    for sight in (True, False):
        ue = torch.tensor(np.column_stack([ground, 0 * ground, 0 * ground + 1.5])[None], dtype=torch.float32)
        shape = (1, len(ground))
        model.set_topology(
            ue, torch.tensor([[[0.0, 0.0, scenario.gnb_m]]]), torch.zeros(*shape, 3), torch.zeros(1, 1, 3),
            torch.zeros(*shape, 3), torch.zeros(shape, dtype=torch.bool),
            los=torch.full((1, 1, len(ground)), sight),
        )  # fmt: skip
        sionna_db = model._scenario.basic_pathloss[0, 0].numpy()
        ours_db = tr38901.path_loss_db(scenario, ground, np.full(len(ground), sight), scenario.gnb_m, 1.5, HZ)
        assert ours_db == pytest.approx(sionna_db, abs=0.01)
    probability = model._scenario.los_probability[0, 0].numpy()
    assert tr38901.los_probability(scenario, ground) == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize(("name", "distance_m"), [("umi", 60.0), ("uma", 120.0)])
def test_line_of_sight_is_as_likely_and_as_correlated_as_the_standard_says(name: str, distance_m: float) -> None:
    sight, _ = many_links(name, distance_m, 11)
    probability = float(tr38901.los_probability(tr38901.SCENARIOS[name], np.array([distance_m]))[0])
    assert sight.mean() == pytest.approx(probability, abs=0.03)
    # Two cells 50 m apart: both in sight is an orthant of a Gaussian pair with correlation 1/e.
    lag = round(50.0 / bank.PITCH_M[name])
    both = (sight[:, lag:] & sight[:, :-lag]).mean()
    threshold = norm.ppf(probability)
    pair = multivariate_normal([0.0, 0.0], [[1.0, np.exp(-1.0)], [np.exp(-1.0), 1.0]])
    assert both == pytest.approx(float(pair.cdf([threshold, threshold])), abs=0.03)
    assert both > probability**2 + 0.02
    # Smooth edges: 10 m apart, an exponentially correlated state would differ twice as often.
    near = round(10.0 / bank.PITCH_M[name])
    rho = np.exp(-((near * bank.PITCH_M[name] / 50.0) ** 2))
    together = multivariate_normal([0.0, 0.0], [[1.0, rho], [rho, 1.0]]).cdf([threshold, threshold])
    changes = (sight[:, near:] != sight[:, :-near]).mean()
    assert changes == pytest.approx(2.0 * (probability - float(together)), rel=0.15)


@pytest.mark.parametrize("name", ["umi", "uma"])
def test_soft_state_is_the_equation_of_the_standard(name: str) -> None:
    scenario, rng = tr38901.SCENARIOS[name], np.random.default_rng(4)
    distance, field = rng.uniform(19.0, 900.0, 2000), rng.standard_normal(2000)
    chance = tr38901.los_probability(scenario, distance)
    wavelength_m = 299_792_458.0 / HZ
    offset = np.sqrt(2.0) * erfinv(2.0 * chance - 1.0)
    expected = 0.5 + np.arctan(np.sqrt(20.0 / wavelength_m) * (field + offset)) / np.pi
    soft = tr38901.soft_state(scenario, distance, field, HZ)
    assert soft == pytest.approx(expected, abs=1e-9)
    assert ((soft > 0.5) == (norm.cdf(-field) < chance)).all()
    # At the edge of a shadow half the amplitude is left, 6 dB, as over a knife edge.
    edge = tr38901.soft_state(scenario, distance, -norm.ppf(chance), HZ)
    assert 20.0 * np.log10(edge) == pytest.approx(-6.02, abs=0.01)


@pytest.mark.parametrize("name", ["umi", "uma"])
def test_shadowing_of_local_means_has_the_sigma_of_the_standard_and_its_correlation_averaged(name: str) -> None:
    scenario, pitch = tr38901.SCENARIOS[name], bank.PITCH_M[name]
    offset = np.arange(-40.0, 40.5, 0.5)
    x, y = np.meshgrid(offset, offset)
    # Two averages of a field correlate as the field does over a distance blurred by both.
    blur = np.exp(-(x**2 + y**2) / (4.0 * bank.LOCAL_MEAN_M**2))
    for sigma, correlation in zip(scenario.sigma_db, scenario.correlation_m, strict=True):
        fading = background.shadowing_db(
            60, (100, 100), pitch, np.random.default_rng(21), sigma, correlation, local_mean_m=bank.LOCAL_MEAN_M
        )
        assert fading.mean() == pytest.approx(0.0, abs=0.08 * sigma)
        assert fading.std() == pytest.approx(sigma, rel=0.05)
        for lag in (1, round(correlation / pitch)):
            blurred = [(blur * np.exp(-np.hypot(x + far, y) / correlation)).sum() for far in (lag * pitch, 0.0)]
            product = (fading[:, :, lag:] * fading[:, :, :-lag]).mean() / fading.var()
            assert product == pytest.approx(blurred[0] / blurred[1], abs=0.05)


@pytest.mark.parametrize("name", ["umi", "uma"])
def test_far_into_either_state_links_have_its_path_loss_and_shadowing(name: str) -> None:
    scenario = tr38901.SCENARIOS[name]
    # The standard is certain of line of sight below 18 m; at 20 km it is rare, and the arctangent leaves a trace of it.
    for distance_m, sight, sigma in ((12.0, True, scenario.sigma_db[0]), (20_000.0, False, scenario.sigma_db[1])):
        seen, gain_db = many_links(name, distance_m, 41)
        assert (seen == sight).mean() > 0.995
        loss = tr38901.path_loss_db(
            scenario, np.array([distance_m]), np.array([sight]), scenario.gnb_m, 1.5, HZ
        )
        assert gain_db.mean() == pytest.approx(-float(loss[0]), abs=0.2 if sight else 1.0)
        assert gain_db.std() == pytest.approx(sigma, rel=0.06 if sight else 0.12)


@pytest.mark.parametrize("name", ["umi", "uma"])
def test_no_link_falls_by_twenty_decibels_within_ten_metres(name: str) -> None:
    _, gain_db = many_links(name, 90.0, 51)
    lag = round(10.0 / bank.PITCH_M[name])
    step = np.abs(gain_db[:, :, lag:] - gain_db[:, :, :-lag])
    assert np.quantile(step, 0.99) < 17.0 and (step > 20.0).mean() < 2e-3
    other, _ = many_links(name, 90.0, 31)
    assert (other != many_links(name, 90.0, 51)[0]).any()


@pytest.mark.parametrize("kind", ["umi", "uma"])
def test_shipped_maps_lose_with_distance_what_the_standard_says(kind: str) -> None:
    scenario = tr38901.SCENARIOS[kind]
    rng = np.random.default_rng(7)
    drawn, shipped, ground = [], [], []
    for name in bank.names():
        if name.startswith(kind):
            scene = scenes.load(name)
            row, column = np.nonzero(scene.street)
            x = scene.origin_m[0] + column * scene.cell_size_m
            y = scene.origin_m[1] + row * scene.cell_size_m
            for gain, (gx, gy, gz) in zip(scene.path_gain_db[:, row, column], scene.gnb_xyz_m, strict=True):
                away = np.hypot(x - gx, y - gy)
                clear, blocked = (
                    -tr38901.path_loss_db(scenario, away, np.full(len(away), state), gz, 1.5, HZ)
                    for state in (True, False)
                )
                # One draw per link of the clause's own law, without neighbours and without a local mean.
                threshold = norm.ppf(np.minimum(tr38901.los_probability(scenario, away), 1.0 - 1e-12))
                field, near, far = rng.standard_normal((3, len(away)))
                amplitude = 0.5 + np.arctan(np.sqrt(20.0 * HZ / 299_792_458.0) * (field + threshold)) / np.pi
                power = amplitude**2 * 10.0 ** ((clear + scenario.sigma_db[0] * near) / 10.0)
                power += (1.0 - amplitude**2) * 10.0 ** ((blocked + scenario.sigma_db[1] * far) / 10.0)
                drawn.append(10.0 * np.log10(power) - blocked)
                shipped.append(gain - blocked)
                ground.append(away)
    all_drawn, all_shipped, all_ground = (np.concatenate(parts) for parts in (drawn, shipped, ground))
    for low, high, limit in ((20.0, 60.0, 2.0), (60.0, 120.0, 1.5), (120.0, 300.0, 1.5), (300.0, 900.0, 0.7)):
        inside = (all_ground >= low) & (all_ground < high)
        assert inside.sum() > 1000
        assert abs(all_shipped[inside].mean() - all_drawn[inside].mean()) < limit
        assert all_shipped[inside].std() == pytest.approx(all_drawn[inside].std(), rel=0.12)


@pytest.mark.parametrize("name", bank.names())
def test_the_bank_ships_what_its_program_says(name: str) -> None:
    scene = scenes.load(name)
    assert json.loads(json.dumps(dataclasses.asdict(bank.spec(name)))) == scene.manifest["spec"]
    assert 7 <= len(scene.gnb_xyz_m) <= 19
    assert np.bincount(scene.path_gain_db[:, scene.street].argmax(axis=0)).min() >= 0.03 * scene.street.sum()
    assert 0.2 < scene.street.mean() < 0.7
    spacing = np.linalg.norm(scene.gnb_xyz_m[:, None] - scene.gnb_xyz_m[None], axis=-1)
    np.fill_diagonal(spacing, np.inf)
    assert spacing.min() > 0.6 * tr38901.SCENARIOS[name[:3]].inter_site_m


@pytest.mark.parametrize("name", ["umi-03", "uma-00"])
def test_rebuilding_a_map_gives_the_shipped_arrays(name: str, tmp_path: Path) -> None:
    assert main(["build", name, "--out", str(tmp_path)]) == 0
    keys = tuple(scenes.load(name).to_arrays())
    built, manifest = assets.read(tmp_path / f"{name}.npz", keys)
    shipped, described = assets.read(assets.ASSETS / f"{name}.npz", keys)
    for key in keys:
        assert (built[key] == shipped[key]).all(), key
    assert manifest["gnb_xyz_m"] == described["gnb_xyz_m"]


def test_scenes_of_the_bank_differ_from_one_another() -> None:
    loaded = [scenes.load(name) for name in bank.names()]
    assert len({scene.street.tobytes() for scene in loaded}) == len(loaded)
    assert len({scene.path_gain_db[0].tobytes() for scene in loaded}) == len(loaded)


def test_unknown_and_misplaced_arguments_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"no scene 'umi-99': give one of umi-00"):
        bank.spec("umi-99")
    assert main(["build", "umi-03", "--inter-site", "100", "--out", str(tmp_path)]) == 2
    assert "--inter-site does not apply to umi-03" in capsys.readouterr().err
