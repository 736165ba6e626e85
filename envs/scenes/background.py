"""What ray tracing leaves out: 3GPP street-canyon path loss with spatially correlated shadowing, and free space."""

import numpy as np

# TR 38.901 table 7.5-6, UMi street canyon, NLoS: shadow fading and its correlation distance; clause 7.4.1 for sigma.
SHADOW_SIGMA_DB = 7.82
SHADOW_CORRELATION_M = 13.0


def free_space_gain_db(distance_m: np.ndarray, carrier_hz: float) -> np.ndarray:
    """Friis gain between isotropic antennas, dB; shape of `distance_m` (metres)."""
    return 147.55 - 20.0 * np.log10(distance_m) - 20.0 * np.log10(carrier_hz)


def umi_nlos_gain_db(distance_m: np.ndarray, carrier_hz: float, ue_height_m: float) -> np.ndarray:
    """Median gain of a street-canyon link without line of sight.

    Args:
        distance_m: 3D distance, metres, any shape.
        carrier_hz: Carrier frequency, Hz.
        ue_height_m: Antenna height of the UE, metres.

    Returns:
        dB, shape of `distance_m`.

    Source: TR 38.901 table 7.4.1-1, UMi street canyon: NLoS, and LoS before the breakpoint as its lower bound on loss.
    """
    decades = np.log10(np.maximum(distance_m, 1.0))
    carrier = np.log10(carrier_hz / 1e9)
    nlos = 35.3 * decades + 22.4 + 21.3 * carrier - 0.3 * (ue_height_m - 1.5)
    los = 32.4 + 21.0 * decades + 20.0 * carrier
    return -np.maximum(nlos, los)


def shadowing_db(
    maps: int,
    shape: tuple[int, int],
    cell_size_m: float,
    rng: np.random.Generator,
    sigma_db: float = SHADOW_SIGMA_DB,
    correlation_m: float = SHADOW_CORRELATION_M,
    exponent: float = 1.0,
    local_mean_m: float = 0.0,
) -> np.ndarray:
    """Independent zero-mean Gaussian fields with autocorrelation exp(-(distance / correlation_m)^exponent).

    White noise is filtered in the Fourier domain on a torus twice the size, so that opposite edges of what is kept
    do not resemble each other.

    Args:
        maps: Number of fields; 38.901 draws sites independently.
        shape: Rows and columns.
        cell_size_m: Pitch, metres.
        rng: Source of randomness.
        sigma_db: Standard deviation, dB.
        correlation_m: Distance at which the correlation is 1/e, metres.
        exponent: 1 for the standard's exponential autocorrelation; 2 for a field without its roughness.
        local_mean_m: Standard deviation of the Gaussian weights of a local mean, metres; `sigma_db` is that of the
            means, and the correlation is that of the field before it.

    Returns:
        float64 [maps, rows, columns], dB.

    Source: TR 38.901 clause 7.4.4, equation 7.4-5; exponent and local mean are ours.
    """
    rows, columns = 2 * shape[0], 2 * shape[1]
    down = np.minimum(np.arange(rows), rows - np.arange(rows))[:, None]
    right = np.minimum(np.arange(columns), columns - np.arange(columns))[None, :]
    correlation = np.exp(-((np.hypot(down, right) * cell_size_m / correlation_m) ** exponent))
    spectrum = np.maximum(np.fft.fft2(correlation).real, 0.0)
    if local_mean_m:
        wave = 2.0 * np.pi * np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None, :]) / cell_size_m
        spectrum *= np.exp(-((wave * local_mean_m) ** 2))
    spectrum *= rows * columns / spectrum.sum()
    white = rng.standard_normal((maps, rows, columns))
    field = np.fft.ifft2(np.fft.fft2(white) * np.sqrt(spectrum)).real
    return sigma_db * field[:, : shape[0], : shape[1]]
