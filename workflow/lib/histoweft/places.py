"""Whether places in a plane can be those of one section: finite, apart, spread over an area, one lattice."""

from __future__ import annotations

import numpy as np

HEXAGONAL, SQUARE = 6, 8
"""Neighbours of an inner point."""

MAX_DUPLICATES, MAX_DUPLICATES_ON_LATTICE = 0.6, 0.01
"""Share of observations that may lie on another one's place.

Cells that two fields of view both hold, and centroids rounded to whole pixels, meet in published data (a tenth of the
cells of osmFISH); two spots of one slide never do. Two sections on one another share half of their places: people are
told, and readers, which know the file's columns, refuse them where a column tells them apart.
"""

TOLD_DUPLICATES = 0.01
"""Share from which people are told."""

_FLAT = 1e-4
_PAIRED = 0.5
_FEWEST = 20


def spacing(xy: np.ndarray) -> float:
    """Return the median distance to the nearest other point, in the units of `xy`; 1 where there is none.

    Parameters
    ----------
    xy
        n x 2. Above 20,000 points every k-th is asked, still against all of them.
    """
    from scipy.spatial import cKDTree

    xy = np.unique(np.asarray(xy, dtype=float), axis=0)
    if len(xy) < 2:
        return 1.0
    asked = xy[:: max(1, len(xy) // 20_000)]
    return float(np.median(cKDTree(xy).query(asked, k=2)[0][:, 1]))


def duplicate_share(xy: np.ndarray) -> float:
    """Return the share of observations on a place that an earlier one holds; those without a place do not count.

    Parameters
    ----------
    xy
        (n, 2) or (n, 3).
    """
    known = _finite(xy)
    return 1 - len(np.unique(known, axis=0)) / len(known) if len(known) else 0.0


def is_collinear(xy: np.ndarray) -> bool:
    """Say whether all places lie on one point or line: there is no area to be a neighbour in."""
    known = np.unique(_finite(xy)[:, :2], axis=0)
    if len(known) < 3:
        return True
    # Widths along and across the line: in units of the longer one, so that the unit of length does not matter.
    long, short = np.linalg.svd(known - known.mean(axis=0), compute_uv=False)
    return bool(short <= _FLAT * long)


def lattice(xy: np.ndarray) -> int:
    """Recognise a regular lattice.

    Parameters
    ----------
    xy
        (n, 2).

    Returns
    -------
    6 for a hexagonal one, 8 for a square one, 0 for none: nine in ten nearest neighbours must lie within 5 % of the
    pitch, and most points must have 6 (or 4) neighbours at that distance.
    """
    from scipy.spatial import cKDTree

    if len(xy) < _FEWEST:
        return 0
    pitch = spacing(xy)
    asked = xy[:: max(1, len(xy) // 5_000)]
    near = cKDTree(xy).query(asked, k=9)[0][:, 1:]
    if np.mean(np.abs(near[:, 0] / pitch - 1) < 0.05) < 0.9:
        return 0
    common = int(np.bincount((near < 1.2 * pitch).sum(axis=1)).argmax())
    return {6: HEXAGONAL, 4: SQUARE}.get(common, 0)


def is_overlaid(xy: np.ndarray) -> bool:
    """Say whether one lattice lies on another, shifted.

    Most places then have a twin much nearer than all others, all in one direction, and one of each pair make a lattice.
    Cells lie at random: their nearest neighbours are in every direction.
    """
    from scipy.spatial import cKDTree

    known = np.unique(_finite(xy)[:, :2], axis=0)
    if len(known) < 2 * _FEWEST:
        return False
    far, near = cKDTree(known).query(known, k=3)
    shift = known[near[:, 1]] - known
    # A place's twin has the place itself as its twin: each pair is looked at from its left (or lower) place.
    first = (far[:, 1] < 0.8 * far[:, 2]) & ((shift[:, 0] > 0) | ((shift[:, 0] == 0) & (shift[:, 1] > 0)))
    if 2 * first.sum() < _PAIRED * len(known):
        return False
    usual = np.median(shift[first], axis=0)
    first[first] = np.linalg.norm(shift[first] - usual, axis=1) <= 0.05 * np.linalg.norm(usual)
    return 2 * first.sum() >= _PAIRED * len(known) and lattice(known[first]) > 0


def fault_of(xy: np.ndarray, on_lattice: bool = False) -> str:
    """Return in words why these cannot be the places of one section, or an empty string.

    Parameters
    ----------
    xy
        (n, 2).
    on_lattice
        Spots or bins, which never share a place; cells now and then do.

    Returns
    -------
    What continues "found": ``640 of 1,280 observations on a place that another one holds``.
    """
    xy = np.asarray(xy, dtype=float)
    n = len(xy)
    if lost := n - len(_finite(xy)):
        return f"{lost:,} of {n:,} observations without a place (a coordinate is missing or infinite)"
    if n < 3:
        return f"{n} observation{'s' if n != 1 else ''}, of at least 3 that can be neighbours"
    if len(np.unique(xy[:, :2], axis=0)) == 1:
        return f"all {n:,} observations on one point"
    if is_collinear(xy):
        return f"all {n:,} observations on one line"
    if duplicate_share(xy) > (MAX_DUPLICATES_ON_LATTICE if on_lattice else MAX_DUPLICATES):
        return _shared_places(xy)
    if is_overlaid(xy):
        return f"two lattices on one another: most of the {n:,} observations have a twin a little way off"
    return ""


def caution_of(xy: np.ndarray) -> str:
    """Return in words what people should look at in places that `fault_of` lets pass, or an empty string."""
    if duplicate_share(xy) < TOLD_DUPLICATES:
        return ""
    return f"{_shared_places(xy)} (the same cells in two fields of view, or twice in the file)"


def _shared_places(xy: np.ndarray) -> str:
    return f"{round(duplicate_share(xy) * len(xy)):,} of {len(xy):,} observations on a place that another one holds"


def _finite(xy: np.ndarray) -> np.ndarray:
    xy = np.asarray(xy, dtype=float)
    return xy[np.isfinite(xy).all(axis=1)]
