"""The link layer run in every step: Sionna's PHYAbstraction with sampled decoding errors (`radio.phy: exact`).

The table (`radio.phy: table`) says what a link carries on average. Here link adaptation picks an MCS for the SINR and
the resource blocks of each UE, PHYAbstraction gives the probability that a transport block fails, and whether it does
is drawn: a block that fails is sent again at full length, so that the tokens of that step spend two, three, ... times
the air time of one attempt. One draw per UE and step: a channel that stays bad for a decision interval.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...threads import torch_threads
from ..sim.jit import allocating
from ..sim.params import RadioConfig
from ..sim.streams import RADIO, RADIO_ATTEMPTS, uniform
from .phy import BLER_TARGET, MCS_TABLE, PDSCH, PRBS, RES_PER_PRB

# Resource blocks per hertz: 51 in 20 MHz at 30 kHz subcarrier spacing (TS 38.101-1, table 5.3.2-1), which PRBS is.
PRBS_PER_HZ = PRBS / 20e6
# torch computes the last few numbers of an array with other instructions than the rest; whole multiples of this keep
# an environment's numbers the same, bit for bit, whatever stands beside it in the batch.
_PAD = 64


class ExactPhy:
    """Overwrites the air time of every UE with a sampled one; the Simulator calls it after each reset and step.

    HARQ without combining: Sionna has no curves for combined blocks, so every attempt fails with the same probability
    and the number of attempts is geometric. Its mean 1 / (1 - p) makes the mean air time that of the table, except
    for the table's running maximum over SINR and for blocks shorter than 51 resource blocks.

    Args:
        radio: payload, bandwidth and cap of the air time.

    Source: sionna.sys PHYAbstraction and InnerLoopLinkAdaptation; TS 38.214 clause 5.1.3. Attempts are our own model.
    """

    def __init__(self, radio: RadioConfig) -> None:
        import torch
        from sionna.phy.nr.utils import MCSDecoderNR, TransportBlockNR
        from sionna.sys import InnerLoopLinkAdaptation, PHYAbstraction

        self.radio = radio
        self._torch: Any = torch
        self._abstraction = PHYAbstraction(device="cpu")
        self._adaptation = InnerLoopLinkAdaptation(self._abstraction, bler_target=BLER_TARGET, device="cpu")
        self._decoder, self._block = MCSDecoderNR(device="cpu"), TransportBlockNR(device="cpu")

    def __call__(self, state: Any) -> None:
        """Set `air_s` of every UE for the step to come from its SINR, its cell's load and its own draw.

        Args:
            state: anything with the records `ue` [E, U] (envs.sim.records.RADIO) and `world` [E] (CLOCK), and `keys`.
        """
        sharers = active(state.ue)
        information, failure = self.blocks(state.ue["sinr_db"], self.prbs(sharers))
        draws = np.empty(sharers.shape)
        _draw(state.keys, state.world["step"], draws)
        one_s = np.full(sharers.shape, np.inf)
        rate = self.radio.bandwidth_hz / sharers * information
        np.divide(self.radio.token_payload_bits, rate, out=one_s, where=rate > 0.0)
        with np.errstate(invalid="ignore"):
            air_s = attempts(draws, failure) * one_s
        state.ue["air_s"] = np.minimum(self.radio.max_air_s, air_s)

    def prbs(self, sharers: np.ndarray) -> np.ndarray:
        """Resource blocks of one UE when `sharers` UEs share the band, int64, at least 1."""
        return np.maximum(1, np.round(PRBS_PER_HZ * self.radio.bandwidth_hz / sharers)).astype(np.int64)

    def blocks(self, sinr_db: np.ndarray, prbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One transport block per link at the MCS that link adaptation picks.

        Args:
            sinr_db: Any shape, dB.
            prbs: int, same shape, resource blocks.

        Returns:
            Information bits per resource element, and the probability that the block fails; float64, same shape. The
            probability is 1 where Sionna has no error curve (PDSCH MCS 0 to 2).
        """
        torch = self._torch
        size = sinr_db.size
        padded = -(-size // _PAD) * _PAD
        sinr = np.full(padded, 1.0)
        sinr[:size] = 10.0 ** (np.ravel(sinr_db) / 10.0)
        elements = np.full(padded, PRBS * RES_PER_PRB)
        elements[:size] = np.ravel(prbs) * RES_PER_PRB
        with torch_threads(1), torch.no_grad():
            link = {
                "sinr_eff": torch.as_tensor(sinr, dtype=torch.float32)[None],
                "num_allocated_re": torch.as_tensor(elements, dtype=torch.int32)[None],
                "mcs_table_index": MCS_TABLE,
                "mcs_category": PDSCH,
            }
            mcs = self._adaptation(**link).to(torch.int32)
            _, _, _, failure, _ = self._abstraction(mcs, **link)
            order, rate = self._decoder(
                mcs, torch.full_like(mcs, MCS_TABLE), torch.full_like(mcs, PDSCH), check_index_validity=False
            )
            coded = order * link["num_allocated_re"]
            bits, _, _ = self._block.transport_block_size(order, rate, coded)
        efficiency = bits[0].numpy()[:size] / elements[:size]
        fails = np.clip(failure[0].numpy()[:size].astype(np.float64), 0.0, 1.0)
        return efficiency.reshape(sinr_db.shape), fails.reshape(sinr_db.shape)


def active(ue: np.ndarray) -> np.ndarray:
    """UEs that share the band of each UE's cell, at least 1, int64 [E, U]."""
    same = ue["radio"][:, :, None] == ue["radio"][:, None, :]
    return np.maximum(1, (same & ue["active"][:, None, :]).sum(axis=-1))


def attempts(draws: np.ndarray, failure: np.ndarray) -> np.ndarray:
    """Transmissions until the first success: the smallest n with failure^n < draw; infinite at failure 1.

    Args:
        draws: Uniform in (0, 1), any shape.
        failure: Same shape, [0, 1].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        count = 1.0 + np.floor(np.log(draws) / np.log(failure))
    return np.where(failure <= 0.0, 1.0, np.where(failure >= 1.0, np.inf, count))


@allocating
def _draw(keys, step, draws):
    for e in range(draws.shape[0]):
        for u in range(draws.shape[1]):
            draws[e, u] = uniform(keys[e, RADIO], u, RADIO_ATTEMPTS, step[e])
