"""The link curve: expected information bits per resource element over SINR, from Sionna's PHYAbstraction."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...threads import torch_threads
from . import assets

NAME = "phy"
PRBS = 51
# 12 subcarriers x 14 symbols less 18 resource elements of reference signals.
RES_PER_PRB = 150
BLER_TARGET = 0.1
PDSCH = 1
MCS_TABLE = 1


@dataclass(frozen=True)
class PhyTable:
    """Spectral efficiency on a uniform SINR grid; beyond its ends the end values hold.

    Attributes:
        sinr_db: float32 [N], ascending and uniformly spaced, dB.
        efficiency: float32 [N], expected information bits per data resource element, non-decreasing.
            Numerically bit/s/Hz of the data part of the grid: reference signals and cyclic prefix are not deducted.
        manifest: How the table was made.
    """

    sinr_db: np.ndarray
    efficiency: np.ndarray
    manifest: dict


def load_phy_table(path: str | Path | None = None) -> PhyTable:
    """Load the table that ships with the package, or one that `build phy --out DIR` wrote.

    Args:
        path: The .npz file of a table; None for the shipped one.

    Raises:
        SceneError: The file is absent, altered, or not a table.
    """
    npz = assets.ASSETS / f"{NAME}.npz" if path is None else Path(path)
    arrays, manifest = assets.read(npz, ("sinr_db", "efficiency"))
    return PhyTable(manifest=manifest, **arrays)


@torch_threads(1)
def goodput_per_re(sinr_db: np.ndarray) -> np.ndarray:
    """Expected information bits per resource element of one transport block on 51 PRBs, by Sionna.

    Inner-loop link adaptation picks the highest MCS whose block error rate is at most 10 %; the expectation counts
    transport blocks that fail as nothing. It is not monotone: at a change of MCS the error rate jumps.

    Args:
        sinr_db: [N] effective SINR, dB.

    Returns:
        float64 [N], bits per resource element.

    Source: sionna.sys PHYAbstraction and InnerLoopLinkAdaptation; TS 38.214 tables 5.1.3.1-1 and clause 5.1.3.2.
    """
    import torch
    from sionna.phy.nr.utils import MCSDecoderNR, TransportBlockNR
    from sionna.sys import InnerLoopLinkAdaptation, PHYAbstraction

    abstraction = PHYAbstraction(device="cpu")
    adaptation = InnerLoopLinkAdaptation(abstraction, bler_target=BLER_TARGET, device="cpu")
    link = {
        "sinr_eff": torch.as_tensor(10.0 ** (np.asarray(sinr_db) / 10.0), dtype=torch.float32)[None],
        "num_allocated_re": torch.full((1, len(sinr_db)), PRBS * RES_PER_PRB, dtype=torch.int32),
        "mcs_table_index": MCS_TABLE,
        "mcs_category": PDSCH,
    }
    mcs = adaptation(**link).to(torch.int32)
    _, _, _, block_error, _ = abstraction(mcs, **link)
    order, rate = MCSDecoderNR(device="cpu")(
        mcs, torch.full_like(mcs, MCS_TABLE), torch.full_like(mcs, PDSCH), check_index_validity=False
    )
    coded_bits = order * link["num_allocated_re"]
    information_bits, _, _ = TransportBlockNR(device="cpu").transport_block_size(order, rate, coded_bits)
    expected = information_bits * (1.0 - block_error.clamp(0.0, 1.0)) / (PRBS * RES_PER_PRB)
    return expected[0].cpu().numpy().astype(np.float64)


def build_phy(out: Path, command: str = "") -> dict:
    """Compute the table from -10 to 30 dB in steps of 0.1 dB and write phy.npz and phy.json.

    The running maximum makes the curve monotone: a scheduler that sees a dip would keep the lower MCS.

    Args:
        out: Folder to write to.
        command: Command line, for the manifest.

    Returns:
        The manifest.
    """
    from importlib.metadata import version

    sinr_db = np.linspace(-10.0, 30.0, 401)
    raw = goodput_per_re(sinr_db)
    efficiency = np.maximum.accumulate(raw)
    manifest = {
        "name": NAME,
        "kind": "phy",
        "sionna": version("sionna"),
        "torch": version("torch").split("+")[0],
        "command": command,
        "channel": "PDSCH",
        "prbs": PRBS,
        "resource_elements_per_prb": RES_PER_PRB,
        "mcs_table": MCS_TABLE,
        "bler_target": BLER_TARGET,
        "unit": "expected information bits per data resource element",
        "overhead": "none deducted; 150/168 (reference signals) x 14/15 (cyclic prefix) of bandwidth carries data",
        "first_useful_sinr_db": round(float(sinr_db[np.argmax(efficiency > 0.05)]), 1),
        "low_end": "Sionna has no error curves for PDSCH MCS 0 to 2 of this table: what they would carry counts as 0",
        "largest_change_by_running_maximum": round(float((efficiency - raw).max()), 4),
    }
    arrays = {"sinr_db": sinr_db.astype(np.float32), "efficiency": efficiency.astype(np.float32)}
    return assets.write(out / f"{NAME}.npz", arrays, manifest)
