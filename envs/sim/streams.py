"""Counter-based random streams: the same draw for the same (key, who, what, count), whatever happened before.

A policy that delays one session must not change the speed of another UE, or policies would face different worlds on
the same seed. So nothing in the simulator consumes a shared generator: every draw is a hash of its own address, which
says who draws (a UE, a convoy or a cell), what (one of the names below, different within a concern), and a count.
"""

from __future__ import annotations

import numpy as np

from .jit import kernel, kernel_as

CONCERNS = ("mobility", "radio", "sessions", "world", "policy")
MOBILITY, RADIO, SESSIONS, WORLD, POLICY = range(len(CONCERNS))

# What is drawn, by concern. The measurement noise (`normals`) has addresses of its own in RADIO.
MOTION_SPEED, MOTION_START, MOTION_FIRST_LEG, MOTION_DESTINATION, MOTION_SAMPLE = range(5)
RADIO_ATTEMPTS = 1 << 20  # transmissions of a transport block (kvroam.envs.scenes.exact_phy)
SESSION_CONTEXT, SESSION_SCRIPT, SESSION_ANSWER, SESSION_PAUSE, SESSION_BEGUN, SESSION_PROMPT, SESSION_OFFSET = range(7)
(SERVER_SPEED, LINK_EGRESS, LINK_INGRESS, MEASUREMENT_OFFSET, LINK_EGRESS_VARIES, LINK_INGRESS_VARIES,
 SERVER_MEMORY) = range(7)
TURNS_PER_SESSION = 1000  # counts that the turns of one session have for themselves

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_ATTEMPTS, _ACCEPT = 32, 1000  # of a Gamma draw: most tries; distance to the addresses of its other draws


def keys(seed: int, episode: int = 0) -> np.ndarray:
    """One 64-bit key per concern for one episode of one seed, uint64 [len(CONCERNS)] (numpy's SeedSequence)."""
    children = np.random.SeedSequence(seed, spawn_key=(episode,)).spawn(len(CONCERNS))
    return np.array([child.generate_state(1, np.uint64)[0] for child in children], dtype=np.uint64)


# Signatures are spelt out, or every mixture of 32-bit, 64-bit and literal arguments would be compiled again.
@kernel_as("uint64(uint64)")
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * _MIX_A
    z = (z ^ (z >> np.uint64(27))) * _MIX_B
    return z ^ (z >> np.uint64(31))


@kernel_as("uint64(uint64, int64, int64, int64)")
def draw(key, who, what, count):
    """The 64-bit draw at one address: SplitMix64 finalisers over the key and three integers."""
    z = _mix(key + _GOLDEN * np.uint64(who + 1))
    z = _mix(z + _GOLDEN * np.uint64(what + 1))
    return _mix(z + _GOLDEN * np.uint64(count + 1))


@kernel_as("float64(uint64, int64, int64, int64)")
def uniform(key, who, what, count):
    """A uniform draw in (0, 1)."""
    return (np.float64(draw(key, who, what, count) >> np.uint64(11)) + 0.5) * 2.0**-53


@kernel_as("float64(uint64, int64, int64, int64)")
def normal(key, who, what, count):
    """A standard normal draw (Box-Muller over the addresses 2 count and 2 count + 1)."""
    radius = np.sqrt(-2.0 * np.log(uniform(key, who, what, 2 * count)))
    return radius * np.cos(2.0 * np.pi * uniform(key, who, what, 2 * count + 1))


def normal_quantiles() -> np.ndarray:
    """The table that `normals` draws from: quantiles of the standard normal at the middle of 65,536 equal shares.

    float32 [65536], from -4.2 to 4.2.
    """
    from scipy.special import ndtri

    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)


@kernel
def normals(key, who, count, quantiles, out):
    """Fill `out` with standard normal draws, four per 64-bit draw: every step needs one per UE and cell.

    Inverse transform with 16 bits and a table (`normal_quantiles`); a tenth of the time of `normal`.
    """
    base = _mix(key + _GOLDEN * np.uint64(who + 1)) + _GOLDEN * np.uint64(count + 1)
    bits = np.uint64(0)
    for i in range(out.shape[0]):
        if i % 4 == 0:
            bits = _mix(_mix(base + _MIX_B * np.uint64(i + 1)))
        out[i] = quantiles[bits & np.uint64(0xFFFF)]
        bits >>= np.uint64(16)


@kernel_as("float64(uint64, int64, int64, int64, float64)")
def gamma(key, who, what, count, shape):
    """A Gamma(shape, 1) draw; shape 1 is exactly exponential.

    Source: Marsaglia and Tsang, A simple method for generating gamma variables, ACM TOMS 26 (2000); below 1 the draw
    for shape + 1 times a uniform to the power 1 / shape. Every attempt has addresses of its own; a draw needs 1.05
    attempts on average, so that the last one practically never is taken unseen.
    """
    if shape == 1.0:
        return -np.log(uniform(key, who, what, count))
    d = (shape if shape > 1.0 else shape + 1.0) - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    v = 1.0
    for attempt in range(_ATTEMPTS):
        at = _ATTEMPTS * count + attempt
        z = normal(key, who, what, at)
        v = max(1e-12, 1.0 + c * z) ** 3
        if v > 1e-30 and np.log(uniform(key, who, what + _ACCEPT, at)) < 0.5 * z * z + d - d * v + d * np.log(v):
            break
    if shape > 1.0:
        return d * v
    return d * v * uniform(key, who, what + 2 * _ACCEPT, count) ** (1.0 / shape)
