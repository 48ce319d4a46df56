"""Which spots, cells or bins are neighbours on the tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.io import CountsFile
from histoweft.places import HEXAGONAL, SQUARE, caution_of, fault_of, is_collinear, lattice, spacing

KINDS = ("grid", "knn", "radius", "delaunay")
LATTICES = {"visium": HEXAGONAL, "visium_hd": SQUARE, "st": SQUARE}
"""Neighbours of an inner point, by platform."""

# Half-way between the ring wanted and the next one, in pitches: 1 and sqrt(3); 1 and sqrt(2); sqrt(2) and 2.
_REACH = {6: 1.37, 4: 1.21, 8: 1.71}
_NEIGHBOURS = 6
_LONGEST_EDGE = 4.0
_MAX_DEGREE = 500
_MANY = 20


@dataclass(frozen=True)
class Section:
    """Where the barcodes of a section lie.

    Attributes
    ----------
    xy
        (n, 2); um where `in_um`, else the file's own units.
    in_um
        Whether the size of a pixel is known.
    platform
        As in the sample sheet.
    """

    xy: np.ndarray
    in_um: bool
    platform: str


def read_section(counts: CountsFile) -> Section:
    """Read the positions of a section from its counts.

    Raises
    ------
    InputError
        There are no positions, or some are not finite.
    """
    names = counts.obsm_names()
    name = next((name for name in ("spatial_um", "spatial") if name in names), None)
    if name is None:
        hint = "Samples without coordinates belong to platform scrna."
        raise InputError.one(counts.path, "no coordinates", "obsm['spatial']", hint)
    xy = np.asarray(counts.obsm(name), dtype=float)[:, :2]
    lost = ~np.isfinite(xy).all(axis=1)
    if lost.any():
        found = f"{lost.sum()} of {len(xy)} positions missing (e.g. {counts.obs_names[lost][0]})"
        raise InputError.one(counts.path, found, "a position for each barcode", "Remove these barcodes.")
    return Section(xy, name == "spatial_um", str(counts.uns.get("histoweft", {}).get("platform", "")))


def spatial_graph(
    section: Section,
    kind: str = "auto",
    neighbours: int | None = None,
    radius_um: float | None = None,
    rings: int = 1,
    where: str = "space.graph",
) -> tuple[str, sp.csr_matrix, sp.csr_matrix]:
    """Connect the points of a section to their neighbours.

    Parameters
    ----------
    section
        Positions and platform.
    kind
        ``grid`` (first ring of the platform's lattice), ``knn``, ``radius``, ``delaunay``, or ``auto``: grid for
        lattices, Delaunay else.
    neighbours
        grid: 6 on a hexagonal lattice, 4 or 8 on a square one (6 and 8 when None); knn: neighbours of a point (6 when
        None). The union makes it symmetric.
    radius_um
        radius: the distance within which points are neighbours; delaunay: longest edge kept, 4 times the median edge
        when None.
    rings
        grid: how many rings of the lattice.
    where
        How messages call the options.

    Returns
    -------
    kind
        The kind made, never ``auto``.
    connectivities
        (n, n) float32, ones; symmetric, no diagonal, sorted.
    distances
        The same structure; um, or the file's own units where um are not known.

    Raises
    ------
    InputError
        The options do not fit the section, or its places are not those of one section.
    """
    xy = section.xy
    if not np.isfinite(xy).all():
        raise InputError.one(where, fault_of(xy), "a position for each barcode", "Remove these barcodes.")
    found = LATTICES.get(section.platform, 0) or lattice(xy)
    # Few spots, or those of one line, still have neighbours along it: `cautions` tells.
    if (wrong := fault_of(xy, found > 0)) and not _is_thin(xy):
        hint = "One sample is one section: use the column subset of the sample sheet to choose one."
        raise InputError.one(where, wrong, "the places of one section, each observation on its own", hint)
    if kind == "auto":
        kind = "grid" if found else "delaunay"
    if radius_um is not None and not section.in_um:
        hint = "Give mpp in the sample sheet, or use another kind of graph."
        raise InputError.one(f"{where}.radius_um", f"{radius_um:g} um", "a section with known um per pixel", hint)
    if kind == "grid":
        pairs = _grid(xy, found, neighbours, rings, where)
    elif kind == "knn":
        pairs = _nearest(xy, neighbours or _NEIGHBOURS)
    elif kind == "radius":
        pairs = _within(xy, radius_um, where)
    else:
        pairs = _delaunay(xy, radius_um)
    return kind, *_symmetric(xy, pairs)


def _is_thin(xy: np.ndarray) -> bool:
    """Say whether places are few or on one line, but still several."""
    return np.isfinite(xy).all() and is_collinear(xy) and len(np.unique(xy, axis=0)) == len(xy)


def cautions(section: Section, graph: sp.csr_matrix, kind: str) -> list[str]:
    """Say what people should look at in a spatial graph that could be made; sentences, mostly none.

    Parameters
    ----------
    section
        What it was made from.
    graph
        Connectivities.
    kind
        As `spatial_graph` returns it.
    """
    found = []
    if _is_thin(section.xy):
        found.append(f"{fault_of(section.xy)}: neighbours lie along it only")
    elif shared := caution_of(section.xy):
        found.append(shared)
    inner = LATTICES.get(section.platform, 0) or lattice(section.xy)
    usual = float(np.median(np.diff(graph.indptr))) if graph.shape[0] else 0.0
    if kind == "grid" and graph.shape[0] >= _MANY and usual <= inner / 2:
        found.append(
            f"half of the {graph.shape[0]:,} spots have {usual:g} or fewer neighbours, where the lattice has {inner}: "
            "the places are scattered or do not form this platform's lattice"
        )
    alone = float((np.diff(graph.indptr) == 0).mean()) if graph.shape[0] else 0.0
    if kind == "radius" and alone > 0.5:
        found.append(
            f"{alone:.0%} of the {graph.shape[0]:,} observations have no neighbour: is space.graph.radius_um too low? "
            f"The median distance to the nearest other one is {spacing(section.xy):.3g} um"
        )
    return found


def _symmetric(xy: np.ndarray, pairs: np.ndarray) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Turn unordered pairs (m, 2), each once, into two symmetric matrices of one structure."""
    n = len(xy)
    lengths = np.sqrt(((xy[pairs[:, 0]] - xy[pairs[:, 1]]) ** 2).sum(axis=1)).astype(np.float32)
    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    # Stored as 1 + position, so that points at one place (distance 0) keep their edge.
    order = sp.csr_matrix((np.arange(1, len(rows) + 1), (rows, columns)), shape=(n, n))
    order.sort_indices()
    edges = np.concatenate([lengths, lengths])[order.data - 1]
    structure = (order.indices.astype(np.int32), order.indptr.astype(np.int64))
    return tuple(
        sp.csr_matrix((values, *structure), shape=(n, n)) for values in (np.ones(len(edges), np.float32), edges)
    )


def _unique(pairs: np.ndarray, n: int) -> np.ndarray:
    """Return unordered pairs of different points, each once."""
    low, high = pairs.min(axis=1).astype(np.int64), pairs.max(axis=1).astype(np.int64)
    keys = np.unique(low[low < high] * n + high[low < high])
    return np.column_stack([keys // n, keys % n])


def _grid(xy: np.ndarray, found: int, neighbours: int | None, rings: int, where: str) -> np.ndarray:
    allowed = {HEXAGONAL: (6,), SQUARE: (4, 8)}.get(found)
    if allowed is None:
        hint = "Use kind: delaunay, knn or radius for cells."
        raise InputError.one(f"{where}.kind", "grid", "a section whose points lie on a lattice", hint)
    if neighbours not in (None, *allowed):
        raise InputError.one(f"{where}.neighbours", neighbours, f"{' or '.join(map(str, allowed))} on this lattice")
    from scipy.spatial import cKDTree

    first = cKDTree(xy).query_pairs(_REACH[neighbours or found] * spacing(xy), output_type="ndarray")
    if rings == 1:
        return first
    n = len(xy)
    step = sp.csr_matrix((np.ones(len(first), np.float32), (first[:, 0], first[:, 1])), shape=(n, n))
    step = step + step.T + sp.identity(n, dtype=np.float32, format="csr")
    reach = step
    for _ in range(rings - 1):
        reach = reach @ step
        reach.data[:] = 1
    reach = sp.triu(reach, k=1, format="coo")
    return np.column_stack([reach.row, reach.col])


def _nearest(xy: np.ndarray, neighbours: int) -> np.ndarray:
    from scipy.spatial import cKDTree

    n = len(xy)
    k = min(neighbours, n - 1)
    # Points at one place may come before the point itself: k + 1 are asked for, and itself is left out.
    near = cKDTree(xy).query(xy, k=k + 1)[1]
    own = near == np.arange(n)[:, None]
    own[~own.any(axis=1), -1] = True
    return _unique(np.column_stack([np.repeat(np.arange(n), k), near[~own]]), n)


def _within(xy: np.ndarray, radius: float | None, where: str) -> np.ndarray:
    from scipy.spatial import cKDTree

    if radius is None:
        raise InputError.one(f"{where}.radius_um", "nothing", "a distance in um", "kind: radius needs it.")
    tree = cKDTree(xy)
    degree = tree.query_ball_point(xy[:: max(1, len(xy) // 2_000)], radius, return_length=True).mean() - 1
    if degree > _MAX_DEGREE:
        found = f"{radius:g} um, which holds {degree:.0f} neighbours of a point"
        raise InputError.one(f"{where}.radius_um", found, f"a radius of at most {_MAX_DEGREE} neighbours")
    return tree.query_pairs(radius, output_type="ndarray")


def _delaunay(xy: np.ndarray, longest: float | None) -> np.ndarray:
    """Return the edges of the Delaunay triangulation up to a length; points at one place share their edges' hub."""
    from scipy.spatial import Delaunay, QhullError

    if is_collinear(xy):  # within rounding, triangles would be slivers that skip over neighbours
        return _nearest(xy, 2) if len(xy) > 1 else np.zeros((0, 2), np.int64)
    try:
        made = Delaunay(xy)
    except (QhullError, ValueError):
        # Fewer than three points, or all on one line: there are no triangles.
        return _nearest(xy, 2) if len(xy) > 1 else np.zeros((0, 2), np.int64)
    corners = made.simplices
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]], made.coplanar[:, [0, 2]]])
    pairs = _unique(edges, len(xy))
    lengths = np.sqrt(((xy[pairs[:, 0]] - xy[pairs[:, 1]]) ** 2).sum(axis=1))
    return pairs[lengths <= (_LONGEST_EDGE * np.median(lengths) if longest is None else longest)]


def describe(graph: sp.csr_matrix) -> str:
    """Say in words how many neighbours points have, and how many have none."""
    degree = np.diff(graph.indptr)
    alone = int((degree == 0).sum())
    return (
        f"{graph.shape[0]} points, {graph.nnz // 2} edges; median {np.median(degree):g} neighbours, {alone} without any"
    )


def row_normalised(graph: sp.csr_matrix) -> sp.csr_matrix:
    """Divide each row by its sum, float64; rows without neighbours stay empty."""
    sums = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    scale = np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
    return sp.csr_matrix(
        (graph.data * np.repeat(scale, np.diff(graph.indptr)), graph.indices, graph.indptr), shape=graph.shape
    )
