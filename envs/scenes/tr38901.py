"""TR 38.901 urban micro and macro cells outdoors: line-of-sight probability, path loss, and what is correlated."""

from dataclasses import dataclass

import numpy as np

SPEED_OF_LIGHT_MPS = 299_792_458.0
# The path-loss formulas begin here (table 7.4.1-1); nearer links keep the loss of this distance on the ground.
NEAREST_M = 10.0
# Correlation distance of the LoS/NLoS state, table 7.6.3.1-2, the same for UMi and UMa.
STATE_CORRELATION_M = 50.0
# Effective environment height h_E of notes to table 7.4.1-1: 1 m for UMi, and for UMa at UEs below 13 m.
ENVIRONMENT_M = 1.0
# Largest LoS probability that has a finite normal quantile in float64, with a margin.
CERTAIN = 1.0 - 1e-12


@dataclass(frozen=True)
class Scenario:
    """One column of the standard's tables, for outdoor UEs below 13 m.

    Attributes:
        name: umi (street canyon) or uma.
        inter_site_m: Distance of neighbouring sites, metres (table 7.2-1).
        gnb_m: Antenna height of gNBs, metres (table 7.2-1).
        los_decay_m: Decay of the LoS probability, metres (table 7.4.2-1).
        sigma_db: Shadow fading with and without line of sight, dB (table 7.4.1-1).
        correlation_m: Its correlation distance with and without line of sight, metres (table 7.5-6).
    """

    name: str
    inter_site_m: float
    gnb_m: float
    los_decay_m: float
    sigma_db: tuple[float, float]
    correlation_m: tuple[float, float]


UMI = Scenario("umi", 200.0, 10.0, los_decay_m=36.0, sigma_db=(4.0, 7.82), correlation_m=(10.0, 13.0))
UMA = Scenario("uma", 500.0, 25.0, los_decay_m=63.0, sigma_db=(4.0, 6.0), correlation_m=(37.0, 50.0))
SCENARIOS = {scenario.name: scenario for scenario in (UMI, UMA)}


def los_probability(scenario: Scenario, distance_2d_m: np.ndarray) -> np.ndarray:
    """Probability of line of sight.

    Args:
        scenario: UMI or UMA.
        distance_2d_m: On the ground, metres, any shape.

    Returns:
        float64, same shape, [0, 1].

    Source: TR 38.901 table 7.4.2-1; the factor of UMa for UEs above 13 m is 1 here.
    """
    near = np.minimum(18.0 / np.maximum(distance_2d_m, 18.0), 1.0)
    return near + np.exp(-np.asarray(distance_2d_m) / scenario.los_decay_m) * (1.0 - near)


def soft_state(scenario: Scenario, distance_2d_m: np.ndarray, field: np.ndarray, carrier_hz: float) -> np.ndarray:
    """Soft line-of-sight state: 0 without line of sight, 1 with it, 1/2 at the edge of a shadow.

    Args:
        scenario: UMI or UMA.
        distance_2d_m: On the ground, metres, any shape.
        field: Standard normal, same shape, correlated in space.
        carrier_hz: Carrier frequency, Hz.

    Returns:
        float64, same shape, (0, 1).

    Source: TR 38.901 clause 7.6.3.3, equation 7.6-18.
    """
    from scipy.special import ndtri

    # sqrt(2) erfinv(2 p - 1) is the normal quantile; it is infinite where the probability is 1.
    threshold = ndtri(np.minimum(los_probability(scenario, distance_2d_m), CERTAIN))
    steepness = np.sqrt(20.0 * carrier_hz / SPEED_OF_LIGHT_MPS)
    return 0.5 + np.arctan(steepness * (field + threshold)) / np.pi


def path_loss_db(
    scenario: Scenario, distance_2d_m: np.ndarray, sight: np.ndarray, gnb_m: float, ue_m: float, carrier_hz: float
) -> np.ndarray:
    """Median path loss.

    Args:
        scenario: UMI or UMA.
        distance_2d_m: On the ground, metres, any shape.
        sight: bool, same shape, whether the link has line of sight.
        gnb_m: Antenna height of the gNB, metres.
        ue_m: Antenna height of the UE, metres.
        carrier_hz: Carrier frequency, Hz.

    Returns:
        float64, same shape, dB.

    Source: TR 38.901 table 7.4.1-1, UMi street canyon and UMa, LoS on both sides of the breakpoint, and NLoS.
    """
    ground = np.maximum(distance_2d_m, NEAREST_M)
    decades = np.log10(np.hypot(ground, gnb_m - ue_m))
    carrier = np.log10(carrier_hz / 1e9)
    breakpoint_m = 4.0 * (gnb_m - ENVIRONMENT_M) * (ue_m - ENVIRONMENT_M) * carrier_hz / SPEED_OF_LIGHT_MPS
    bend = np.log10(breakpoint_m**2 + (gnb_m - ue_m) ** 2)
    if scenario.name == "umi":
        before = 32.4 + 21.0 * decades + 20.0 * carrier
        beyond = 32.4 + 40.0 * decades + 20.0 * carrier - 9.5 * bend
        blocked = 22.4 + 35.3 * decades + 21.3 * carrier - 0.3 * (ue_m - 1.5)
    else:
        before = 28.0 + 22.0 * decades + 20.0 * carrier
        beyond = 28.0 + 40.0 * decades + 20.0 * carrier - 9.0 * bend
        blocked = 13.54 + 39.08 * decades + 20.0 * carrier - 0.6 * (ue_m - 1.5)
    clear = np.where(ground <= breakpoint_m, before, beyond)
    return np.where(sight, clear, np.maximum(clear, blocked))
