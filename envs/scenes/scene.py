"""A scene as the simulator reads it: path-gain maps, the street mask, base stations and routes. numpy only."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import SceneError
from . import assets

# (row, column) steps of the codes 0..7 in Scene.next_direction: east, north-east, north, ... (row grows with y).
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
ARRIVED = 8
OFF_STREET = 255
# Path gains are stored as int16 hundredths of a dB: half the size, and finer than the ray tracer's own noise.
STORED_PER_DB = 100.0

_ARRAYS = ("origin_m", "cell_size_m", "path_gain_cdb", "street", "gnb_xyz_m", "destinations", "next_direction")


@dataclass(frozen=True)
class Scene:
    """One radio scene on a grid of square cells; row is y, column is x.

    Attributes:
        name: Name of the asset.
        origin_m: x, y of the centre of cell [0, 0], metres.
        cell_size_m: Pitch of the grid, metres.
        path_gain_db: float32 [C, H, W], large-scale gain from each gNB to an isotropic UE, dB, finite everywhere.
        street: bool [H, W], where UEs may be: outdoors, covered, connected.
        gnb_xyz_m: float64 [C, 3], antenna positions, metres.
        destinations: int16 [D, 2], row and column of street cells that are spread over the mask.
        next_direction: uint8 [D, H, W], index into DIRECTIONS of the step towards destination d, 8 at the
            destination, 255 off the street.
        manifest: How the scene was made, and what was measured about it.
    """

    name: str
    origin_m: tuple[float, float]
    cell_size_m: float
    path_gain_db: np.ndarray
    street: np.ndarray
    gnb_xyz_m: np.ndarray
    destinations: np.ndarray
    next_direction: np.ndarray
    manifest: dict

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays as they are stored, without the manifest."""
        return {
            "origin_m": np.asarray(self.origin_m, dtype=np.float64),
            "cell_size_m": np.asarray(self.cell_size_m, dtype=np.float64),
            "path_gain_cdb": np.rint(self.path_gain_db * STORED_PER_DB).astype(np.int16),
            "street": self.street,
            "gnb_xyz_m": self.gnb_xyz_m.astype(np.float64),
            "destinations": self.destinations.astype(np.int16),
            "next_direction": self.next_direction.astype(np.uint8),
        }


def available() -> list[str]:
    """Names of the scenes that ship with the package, sorted."""
    return sorted(npz.stem for npz in assets.ASSETS.glob("*.npz") if npz.stem != "phy")


def load(name_or_path: str | Path) -> Scene:
    """Load a shipped scene by name, or a built one by the path of its .npz file.

    Args:
        name_or_path: One of `available()`, or a path that ends in .npz.

    Returns:
        The scene; its arrays are read-only.

    Raises:
        SceneError: No such scene (the message lists the names), files that do not match their manifest, or contents
            that no simulation could use.
    """
    path = Path(name_or_path)
    if path.suffix != ".npz":
        if str(name_or_path) not in available():
            raise SceneError(
                f"scene {str(name_or_path)!r} is not one of {', '.join(available()) or '(none built)'}: "
                "use one of these, or the path of an .npz made by `python -m kvroam.envs.scenes build`"
            )
        path = assets.ASSETS / f"{name_or_path}.npz"
    arrays, manifest = assets.read(path, _ARRAYS)
    scene = Scene(
        name=str(manifest.get("name", path.stem)),
        origin_m=(float(arrays["origin_m"][0]), float(arrays["origin_m"][1])),
        cell_size_m=float(arrays["cell_size_m"]),
        path_gain_db=(arrays["path_gain_cdb"] / STORED_PER_DB).astype(np.float32),
        street=arrays["street"],
        gnb_xyz_m=arrays["gnb_xyz_m"],
        destinations=arrays["destinations"],
        next_direction=arrays["next_direction"],
        manifest=manifest,
    )
    _check_shapes(scene, path)
    _check_values(scene, path)
    for array in (scene.path_gain_db, scene.street, scene.gnb_xyz_m, scene.destinations, scene.next_direction):
        array.setflags(write=False)
    return scene


def _check_shapes(scene: Scene, path: Path) -> None:
    gnbs, rows, columns = scene.path_gain_db.shape if scene.path_gain_db.ndim == 3 else (0, 0, 0)
    destinations = len(scene.destinations)
    expected = {
        "street": (rows, columns),
        "gnb_xyz_m": (gnbs, 3),
        "destinations": (destinations, 2),
        "next_direction": (destinations, rows, columns),
    }
    for field, shape in expected.items():
        if getattr(scene, field).shape != shape:
            raise SceneError(f"{path}: {field} has shape {getattr(scene, field).shape}, needs {shape}: build it again")


def _check_values(scene: Scene, path: Path) -> None:
    """Refuse what would strand a UE off the street or make a link nan: a message names the array and the remedy."""
    def refuse(key: str, what: str) -> None:
        raise SceneError(f"{path}: {key} {what}: build it again")

    if not len(scene.gnb_xyz_m):
        refuse("gnb_xyz_m", "holds no gNB, at least 1 is needed")
    if not (scene.cell_size_m > 0.0 and np.isfinite(scene.cell_size_m)):
        refuse("cell_size_m", f"is {scene.cell_size_m}, it must be finite and above 0")
    for key in ("path_gain_db", "gnb_xyz_m", "origin_m"):
        bad = int((~np.isfinite(getattr(scene, key))).sum())
        if bad:
            refuse(key, f"holds {bad} numbers that are not finite")
    if min(scene.street.shape) < 2 or scene.street.sum() < 2 or not len(scene.destinations):
        refuse("street", "needs two cells and a destination, in a grid of at least 2 x 2")
    row, column = scene.destinations.T.astype(np.int64)
    inside = (row >= 0) & (row < scene.street.shape[0]) & (column >= 0) & (column < scene.street.shape[1])
    if not inside.all() or not scene.street[row, column].all():
        refuse("destinations", "holds a cell that is not on the street")
    wrong = int((_step_lands(scene) != scene.street).sum())
    if wrong:
        refuse("next_direction", f"leads off the street, or is missing, at {wrong} cells")


def _step_lands(scene: Scene) -> np.ndarray:
    """Where the step towards every destination lands on the street (or has arrived), bool [D, H, W]."""
    code = scene.next_direction
    walled = np.pad(scene.street, 1)
    rows, columns = scene.street.shape
    lands = (code == ARRIVED) & scene.street
    for number, (down, right) in enumerate(DIRECTIONS):
        lands |= (code == number) & walled[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
    return lands
