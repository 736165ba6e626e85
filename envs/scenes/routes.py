"""Where UEs may walk and drive: the connected street mask, destinations, and the next step of every shortest path."""

import numpy as np

from .scene import ARRIVED, DIRECTIONS, OFF_STREET

# Cost of a street cell is 1 + WALL_AVERSION / (distance to the nearest wall in cells), so that paths keep to the
# middle of a street; on a cell beside the wall a step costs three times that of an open square.
WALL_AVERSION = 2.0


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 4-connected set of true cells.

    Args:
        mask: bool [H, W].

    Returns:
        bool [H, W].
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros_like(mask, dtype=bool)
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def spread_destinations(street: np.ndarray, count: int) -> np.ndarray:
    """Street cells far from one another: each next one is the cell farthest from those chosen so far.

    Args:
        street: bool [H, W].
        count: How many; fewer come back when the mask has fewer cells.

    Returns:
        int16 [D, 2], row and column. The first is the street cell nearest to the mean position.
    """
    cells = np.argwhere(street).astype(np.float64)
    chosen = [int(np.argmin(((cells - cells.mean(axis=0)) ** 2).sum(axis=1)))]
    nearest = np.full(len(cells), np.inf)
    for _ in range(min(count, len(cells)) - 1):
        nearest = np.minimum(nearest, ((cells - cells[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(np.argmax(nearest)))
    return cells[chosen].astype(np.int16)


def next_directions(street: np.ndarray, destinations: np.ndarray) -> np.ndarray:
    """The step towards each destination along the cheapest path over the 8-connected street grid.

    A diagonal step needs both cells beside it to be street, so that nobody cuts through the corner of a building.

    Args:
        street: bool [H, W], 4-connected.
        destinations: int [D, 2], row and column, on the street.

    Returns:
        uint8 [D, H, W], codes of Scene.next_direction.
    """
    from scipy import ndimage, sparse
    from scipy.sparse import csgraph

    rows, columns = street.shape
    # Beyond the edge of the grid there is no wall, so the padding repeats the edge.
    wall_distance = ndimage.distance_transform_edt(np.pad(street, 1, mode="edge"))[1:-1, 1:-1]
    cost = np.where(street, 1.0 + WALL_AVERSION / np.maximum(wall_distance, 1.0), np.inf)
    node = np.where(street, np.cumsum(street).reshape(street.shape) - 1, -1)
    starts, ends, weights = [], [], []
    for code in (0, 1, 2, 3):
        down, right = DIRECTIONS[code]
        here, there = _shifted(rows, columns, down, right)
        allowed = street[here] & street[there]
        if down and right:
            allowed &= street[here[0], there[1]] & street[there[0], here[1]]
        starts.append(node[here][allowed])
        ends.append(node[there][allowed])
        weights.append(0.5 * np.hypot(down, right) * (cost[here] + cost[there])[allowed])
    shape = (int(street.sum()),) * 2
    graph = sparse.csr_array((np.concatenate(weights), (np.concatenate(starts), np.concatenate(ends))), shape=shape)
    targets = node[destinations[:, 0], destinations[:, 1]]
    _, towards = csgraph.dijkstra(graph, directed=False, indices=targets, return_predecessors=True)

    cells = np.argwhere(street)
    code_of = np.full((3, 3), OFF_STREET, dtype=np.uint8)
    for code, (down, right) in enumerate(DIRECTIONS):
        code_of[down + 1, right + 1] = code
    field = np.full((len(destinations), rows, columns), OFF_STREET, dtype=np.uint8)
    for index, target in enumerate(targets):
        reached = towards[index] >= 0
        step = cells[towards[index][reached]] - cells[reached]
        field[index, cells[reached, 0], cells[reached, 1]] = code_of[step[:, 0] + 1, step[:, 1] + 1]
        field[index, cells[target, 0], cells[target, 1]] = ARRIVED
    return field


def _shifted(rows: int, columns: int, down: int, right: int) -> tuple:
    """Open-mesh indices of all cells that have a neighbour at (down, right), and of those neighbours."""
    row = np.arange(max(0, -down), rows - max(0, down))
    column = np.arange(max(0, -right), columns - max(0, right))
    return np.ix_(row, column), np.ix_(row + down, column + right)
