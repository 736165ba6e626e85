"""What Sionna RT is asked for: the height of the first surface from above, lines of sight, and path-gain maps."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

from ...compat import drjit_llvm_version
from ...errors import SceneError

MIN_LLVM = 19
# Scene names of Sionna RT that are maps of places or streets; the rest of its list are solver test pieces.
CREDIT_OSM = ("munich", "etoile", "florence", "san_francisco")


def llvm_library() -> tuple[str, int] | None:
    """The LLVM library that Dr.Jit would load and its major version, read from file names without loading anything.

    DRJIT_LIBLLVM_PATH wins; otherwise the newest one in the places where Linux distributions keep it.
    """
    chosen = os.environ.get("DRJIT_LIBLLVM_PATH")
    places = [Path(chosen)] if chosen else []
    if not chosen:
        for folder in (f"/usr/lib/{platform.machine()}-linux-gnu", "/usr/lib64", "/usr/lib"):
            places += Path(folder).glob("libLLVM*.so*")
    found = []
    for place in places:
        match = re.search(r"libLLVM(?:\.so\.|-)(\d+)", place.resolve().name)
        if match and place.exists():
            found.append((str(place), int(match.group(1))))
    return max(found, key=lambda item: item[1], default=None)


def require_ray_tracer() -> None:
    """Check that Sionna RT can run here before anything is traced.

    The version is checked first because LLVM 15 and 16 import well and then abort the process in the first solver
    call, which no exception handler can catch.

    Raises:
        SceneError: Sionna RT is not installed, or it would run on an LLVM that is absent or older than 19.
    """
    remedy = f"install libllvm{MIN_LLVM} (Debian: apt-get install libllvm{MIN_LLVM}) or set DRJIT_LIBLLVM_PATH to it"
    library = llvm_library()
    if library is not None and library[1] < MIN_LLVM:
        raise SceneError(f"LLVM {library[1]} at {library[0]} aborts in Sionna RT, {MIN_LLVM} is needed: {remedy}")
    try:
        import mitsuba
        import sionna.rt  # noqa: F401  (chooses the Mitsuba variant)
    except ImportError as error:
        raise SceneError(f"Sionna RT cannot start ({str(error).splitlines()[0]}): {remedy}") from None
    if not str(mitsuba.variant()).startswith("llvm"):
        return
    # The library that was found has been checked already; Dr.Jit may have loaded another one.
    version = drjit_llvm_version()
    if version and version[0] < MIN_LLVM:
        raise SceneError(f"Sionna RT runs on LLVM {version[0]}, {MIN_LLVM} is needed: {remedy}")


def llvm_version() -> str:
    """Version of the LLVM that traces rays, or the name of the Mitsuba variant on a GPU."""
    import mitsuba

    variant = str(mitsuba.variant())
    return ".".join(map(str, drjit_llvm_version())) if variant.startswith("llvm") else variant


def scene_names() -> list[str]:
    """Names of the scenes that ship with Sionna RT."""
    require_ray_tracer()
    import sionna.rt.scene as shipped

    return sorted(name for name, value in vars(shipped).items() if isinstance(value, str) and value.endswith(".xml"))


def open_scene(name_or_xml: str, carrier_hz: float, bandwidth_hz: float) -> Any:
    """Load a scene with isotropic, vertically polarised single antennas, on one Dr.Jit thread.

    One thread makes the order of floating-point sums, and so the map, the same bit for bit in every build.

    Args:
        name_or_xml: A name of `scene_names()`, or the path of a Mitsuba .xml file.
        carrier_hz: Carrier frequency, Hz.
        bandwidth_hz: Bandwidth, Hz.

    Returns:
        A sionna.rt.Scene.

    Raises:
        SceneError: Unknown name, unreadable file, or no usable LLVM.
    """
    require_ray_tracer()
    import drjit
    import sionna.rt as rt

    drjit.set_thread_count(1)
    if name_or_xml.endswith(".xml"):
        path = Path(name_or_xml)
        if not path.is_file():
            raise SceneError(f"{name_or_xml} is not a file: give the path of a Mitsuba scene")
    else:
        names = scene_names()
        if name_or_xml not in names:
            raise SceneError(f"Sionna RT has no scene {name_or_xml!r}: give one of {', '.join(names)}, or an .xml")
        path = Path(getattr(rt.scene, name_or_xml))
    try:
        if name_or_xml.endswith(".xml"):
            # Sionna merges shapes of one material: a ground of concrete would become one object with the houses.
            ground = re.escape(_ground(rt.load_scene(str(path), merge_shapes=False))[0])
            scene = rt.load_scene(str(path), merge_shapes_exclude_regex=f"(^|-){ground}$")
        else:
            scene = rt.load_scene(str(path))
    except Exception as error:
        raise SceneError(f"{path.name} cannot be loaded by Sionna RT: {str(error).splitlines()[0]}") from error
    scene.frequency = carrier_hz
    scene.bandwidth = bandwidth_hz
    scene.tx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
    scene.rx_array = scene.tx_array
    return scene


def bounds_m(scene: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner of everything in the scene, float64 [3] each, metres."""
    box = scene.mi_scene.bbox()
    return np.array(box.min, dtype=np.float64).ravel(), np.array(box.max, dtype=np.float64).ravel()


def surface_height_m(scene: Any, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
    """Height of the first surface that a vertical ray from above meets.

    Args:
        scene: From `open_scene`.
        x_m: Any shape, metres.
        y_m: Same shape, metres.

    Returns:
        float64, same shape, metres; NaN where nothing is hit.
    """
    return _fall(scene.mi_scene, bounds_m(scene)[1][2], x_m, y_m)


def ground_height_m(scene: Any, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
    """Height of the ground, also below buildings: of the object with the largest footprint, the lowest one in a tie.

    Args:
        scene: From `open_scene`.
        x_m: Any shape, metres.
        y_m: Same shape, metres.

    Returns:
        float64, same shape, metres; NaN where the ground object does not reach.
    """
    import mitsuba as mi

    alone = mi.load_dict({"type": "scene", "ground": _ground(scene)[1].mi_mesh})
    return _fall(alone, bounds_m(scene)[1][2], x_m, y_m)


def line_of_sight(scene: Any, from_m: np.ndarray, to_m: np.ndarray) -> np.ndarray:
    """Whether nothing stands between pairs of points.

    Args:
        scene: From `open_scene`.
        from_m: [N, 3], metres.
        to_m: [N, 3], metres.

    Returns:
        bool [N].
    """
    import mitsuba as mi

    span = np.asarray(to_m) - np.asarray(from_m)
    distance = np.linalg.norm(span, axis=1)
    ray: Any = mi.Ray3f(_points(from_m), mi.Vector3f(_points(span / np.maximum(distance, 1e-9)[:, None])))
    ray.maxt = mi.Float(np.asarray(distance - 1e-2, dtype=np.float32))
    return ~scene.mi_scene.ray_test(ray).numpy()


def plane_path_gain(
    scene: Any, lower_m: np.ndarray, shape: tuple[int, int], height_m: float, cell_size_m: float, **solver: Any
) -> np.ndarray:
    """Mean path gain over each cell of a horizontal grid, from every transmitter that the scene holds.

    Args:
        scene: From `open_scene`, with transmitters.
        lower_m: x, y of the lower corner of the grid, metres.
        shape: Rows and columns.
        height_m: z of the grid, metres.
        cell_size_m: Pitch, metres.
        solver: samples_per_tx, max_depth and seed of Sionna's RadioMapSolver.

    Returns:
        float64 [C, H, W], linear; exactly 0 where no ray arrived.
    """
    import sionna.rt as rt

    size = [cell_size_m * extent for extent in reversed(shape)]
    solved = rt.RadioMapSolver()(
        scene,
        center=[float(lower_m[0]) + size[0] / 2, float(lower_m[1]) + size[1] / 2, height_m],
        orientation=[0.0, 0.0, 0.0],
        size=size,
        cell_size=(cell_size_m, cell_size_m),
        refraction=True,
        **solver,
    )
    return solved.path_gain.numpy().astype(np.float64)


def terrain_path_gain(
    scene: Any, lower_m: np.ndarray, corner_height_m: np.ndarray, cell_size_m: float, **solver: Any
) -> np.ndarray:
    """Mean path gain over each cell of a grid that follows the terrain, two triangles per cell.

    Args:
        scene: From `open_scene`, with transmitters.
        lower_m: x, y of the lower corner of the grid, metres.
        corner_height_m: float64 [H + 1, W + 1], z of the corners of cells, metres.
        cell_size_m: Pitch, metres.
        solver: samples_per_tx, max_depth and seed of Sionna's RadioMapSolver.

    Returns:
        float64 [C, H, W], linear; exactly 0 where no ray arrived.
    """
    import mitsuba as mi
    import sionna.rt as rt

    rows, columns = corner_height_m.shape
    x, y = np.meshgrid(lower_m[0] + cell_size_m * np.arange(columns), lower_m[1] + cell_size_m * np.arange(rows))
    vertices = np.dstack([x, y, corner_height_m]).reshape(-1, 3).astype(np.float32)
    corner = np.arange(rows * columns, dtype=np.uint32).reshape(rows, columns)
    here, right, up, across = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    faces = np.stack([here, right, across, here, across, up], axis=-1).reshape(-1, 3)
    mesh = mi.Mesh("ue_surface", len(vertices), len(faces))
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = vertices.ravel()
    parameters["faces"] = faces.ravel()
    parameters.update()
    solved = rt.RadioMapSolver()(scene, measurement_surface=mesh, refraction=True, **solver)
    triangles = solved.path_gain.numpy().astype(np.float64)
    return triangles.reshape(len(triangles), rows - 1, columns - 1, 2).mean(axis=-1)


def place_transmitters(scene: Any, gnb_xyz_m: np.ndarray) -> None:
    """Make the scene's transmitters exactly the gNBs.

    Args:
        scene: From `open_scene`.
        gnb_xyz_m: [C, 3], metres.
    """
    import sionna.rt as rt

    for name in list(scene.transmitters):
        scene.remove(name)
    for index, position in enumerate(gnb_xyz_m):
        scene.add(rt.Transmitter(f"gnb_{index}", [float(axis) for axis in position]))


def _ground(scene: Any) -> tuple[str, Any]:
    """Name and object of the ground."""

    def footprint(item: tuple[str, Any]) -> tuple[float, float]:
        box = item[1].mi_mesh.bbox()
        lower, upper = np.array(box.min).ravel(), np.array(box.max).ravel()
        return float(np.prod(upper[:2] - lower[:2])), -float(upper[2])

    return max(scene.objects.items(), key=footprint)


def _fall(mi_scene: Any, top_m: float, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
    """Height of the first hit of rays that start 10 m above `top_m` and point down."""
    import mitsuba as mi

    start = np.column_stack([np.ravel(x_m), np.ravel(y_m), np.full(np.size(x_m), float(top_m) + 10.0)])
    hit = mi_scene.ray_intersect(mi.Ray3f(_points(start), mi.Vector3f(0.0, 0.0, -1.0)))
    height = np.where(hit.is_valid().numpy(), hit.p.z.numpy().astype(np.float64), np.nan)
    return height.reshape(np.shape(x_m))


def _points(xyz_m: np.ndarray) -> Any:
    import mitsuba as mi

    columns = np.asarray(xyz_m, dtype=np.float32).T
    return mi.Point3f(*(mi.Float(np.ascontiguousarray(column)) for column in columns))
