"""Folds that do not leak: contiguous blocks with a buffer, whole sections or patients; and the audit of any fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histoweft.errors import HistoweftError, InputError

_ROUNDING = 1e-9
"""Share of a buffer that rounding may cost: positions on a grid lie exactly one buffer apart."""


@dataclass(frozen=True)
class Fold:
    """Rows to learn from and rows to test on.

    Attributes
    ----------
    name
        What the metrics table calls it.
    train, test
        Sorted row numbers. A row may be in neither: the buffer around a block.
    """

    name: str
    train: np.ndarray
    test: np.ndarray


def partition(xy: np.ndarray, n_parts: int) -> np.ndarray:
    """Cut points into contiguous parts of equal size.

    Parameters
    ----------
    xy
        points x dimensions, any unit.
    n_parts
        Number of parts, any number up to that of points.

    Returns
    -------
    numpy.ndarray
        Part of each point, 0 to `n_parts` - 1; sizes differ by a point or two. Nothing is random.

    Notes
    -----
    Recursive bisection: the points are cut across their longest principal axis, each side getting its share of parts,
    until every part stands alone. Parts are therefore compact, and contiguous where the tissue is.
    """
    xy = _positions(xy)
    if not 1 <= n_parts <= len(xy):
        raise ValueError(f"{n_parts} parts of {len(xy)} points")
    labels = np.zeros(len(xy), dtype=np.intp)
    waiting = [(np.arange(len(xy)), 0, n_parts)]
    while waiting:
        rows, first, parts = waiting.pop()
        if parts == 1:
            labels[rows] = first
            continue
        left = parts // 2
        along = _along_longest_axis(xy[rows])
        rows = rows[np.argsort(along, kind="stable")]
        cut = round(len(rows) * left / parts)
        waiting += [(rows[:cut], first, left), (rows[cut:], first + left, parts - left)]
    return labels


def _along_longest_axis(points: np.ndarray) -> np.ndarray:
    centred = points - points.mean(axis=0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    axis *= np.sign(axis[np.abs(axis).argmax()]) or 1.0
    along = centred @ axis
    # Points of one grid line are ties, whatever the last bits of their projections say.
    step = np.ptp(along) * 1e-9
    return np.round(along / step) if step > 0 else along


def blocks(xy_um: np.ndarray, n_folds: int = 5, buffer_um: float = 0.0) -> list[Fold]:
    """Hold out contiguous blocks of one section, one after the other.

    Parameters
    ----------
    xy_um
        spots x dimensions, um, of one section (or of one volume).
    n_folds
        Number of blocks.
    buffer_um
        Training spots nearer than this to a test spot are left out of the fold.

    Returns
    -------
    list of Fold
        ``block_1`` and so on.

    Raises
    ------
    InputError
        Too few spots, positions missing, or the buffer leaves nothing to train on.
    """
    xy = _positions(xy_um)
    _check_folds(n_folds, len(xy), "spots", "Ask for fewer folds, or leave this section out.")
    labels = partition(xy, n_folds)
    folds = []
    for block in range(n_folds):
        test = np.flatnonzero(labels == block)
        train = np.flatnonzero(labels != block)
        if buffer_um > 0:
            train = train[~_near(xy[train], xy[test], buffer_um)]
        if len(train) == 0:
            raise InputError.one(
                f"block {block + 1} of {n_folds}",
                f"no training spot farther than the buffer of {buffer_um:g} um from its {len(test)} test spots",
                "at least one",
                "Use a smaller buffer or other folds.",
            )
        folds.append(Fold(f"block_{block + 1}", train, test))
    return folds


def leave_groups_out(groups: Sequence[object] | np.ndarray, n_folds: int | None = None) -> list[Fold]:
    """Hold out whole groups (sections, patients), one fold after the other.

    Parameters
    ----------
    groups
        Group of each row.
    n_folds
        Folds at most; each group by itself when left out. Groups share a fold such that the folds are of similar size.

    Returns
    -------
    list of Fold
        Named after the group, or after the groups joined by ``+``.

    Raises
    ------
    InputError
        Fewer than two groups or folds, or a row without a group.
    """
    names = pd.Series(np.asarray(groups, dtype=object))
    if names.isna().any():
        raise InputError.one(
            "groups to hold out",
            f"no group for {names.isna().sum()} of {len(names)} rows",
            "a group for every row",
            "Fill the column of the sample sheet that names the groups.",
        )
    names = names.astype(str).to_numpy()
    sizes = pd.Series(names).value_counts(sort=False).sort_index()
    if len(sizes) < 2:
        raise InputError.one(
            "groups to hold out",
            f"{len(sizes)} ({', '.join(sizes.index)})",
            "at least two sections or patients",
            "Add a section, or hold out blocks inside it instead.",
        )
    n_folds = len(sizes) if n_folds is None else min(n_folds, len(sizes))
    _check_folds(n_folds, len(sizes), "groups", "")
    shares: list[list[str]] = [[] for _ in range(n_folds)]
    filled = np.zeros(n_folds)
    # The largest first, each to the fold with the fewest rows so far.
    for group, size in sizes.sort_values(ascending=False, kind="stable").items():
        smallest = int(filled.argmin())
        shares[smallest].append(str(group))
        filled[smallest] += size
    folds = []
    for share in sorted(map(sorted, shares)):
        held_out = np.isin(names, share)
        folds.append(Fold("+".join(share), np.flatnonzero(~held_out), np.flatnonzero(held_out)))
    return folds


def random_folds(n: int, n_folds: int = 5, seed: int = 0) -> list[Fold]:
    """Hold out rows at random: what leaks, shown only beside an honest split.

    Parameters
    ----------
    n
        Number of rows.
    n_folds
        Number of folds.
    seed
        Of the draw.

    Returns
    -------
    list of Fold
        ``random_1`` and so on.

    Raises
    ------
    InputError
        Too few rows.
    """
    _check_folds(n_folds, n, "spots", "Ask for fewer folds.")
    parts = np.array_split(np.random.default_rng(seed).permutation(n), n_folds)
    rows = np.arange(n)
    return [
        Fold(f"random_{i}", np.setdiff1d(rows, part, assume_unique=True), np.sort(part))
        for i, part in enumerate(parts, 1)
    ]


def inner_folds(
    xy_um: np.ndarray,
    groups: Sequence[object] | np.ndarray | None = None,
    n_folds: int = 5,
    buffer_um: float = 0.0,
) -> list[Fold]:
    """Cut the training rows of a fold once more, to choose hyper-parameters on.

    Parameters
    ----------
    xy_um
        Positions of the training rows, rows x dimensions, um.
    groups
        Section or patient of each training row.
    n_folds
        Folds at most.
    buffer_um
        See `blocks`.

    Returns
    -------
    list of Fold
        Row numbers among the training rows. Whole groups are held out where there are two or more; contiguous blocks
        where there is one.

    Raises
    ------
    InputError
        Too few rows.
    """
    if groups is not None and pd.Series(np.asarray(groups, dtype=object)).nunique(dropna=False) > 1:
        return leave_groups_out(groups, n_folds)
    return blocks(xy_um, n_folds, buffer_um)


def audit(
    folds: Sequence[Fold],
    n: int,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    xy: np.ndarray | None = None,
    buffer_um: float = 0.0,
    sections: Sequence[object] | np.ndarray | None = None,
) -> None:
    """Refuse folds that leak.

    Parameters
    ----------
    folds
        To be audited.
    n
        Number of rows there are.
    groups
        Group of each row (section, patient), where none may be on both sides of a fold.
    xy
        Positions, rows x dimensions, um; looked at when there is a buffer.
    buffer_um
        Least distance of a training row from the test rows of its section.
    sections
        Section of each row; positions of different sections are not compared. One section when left out.

    Raises
    ------
    HistoweftError
        A row out of range, twice, or on both sides; a side without rows; a row tested in two folds; a group on both
        sides; a training row inside the buffer. The message names the fold.
    """
    tested = np.full(n, -1)
    for at, fold in enumerate(folds):
        _audit_rows(fold, n)
        again = fold.test[tested[fold.test] >= 0]
        if len(again):
            other = folds[tested[again[0]]].name
            raise _leak(fold, f"{_rows(again)} tested in fold {other!r} too", "test each row once")
        tested[fold.test] = at
        if groups is not None:
            _audit_groups(fold, np.asarray(groups, dtype=object))
        if xy is not None and buffer_um > 0:
            _audit_buffer(fold, _positions(xy), buffer_um, sections)


def _audit_rows(fold: Fold, n: int) -> None:
    for side, rows in (("training", fold.train), ("test", fold.test)):
        if len(rows) == 0:
            raise _leak(fold, f"no {side} rows", "give it some, or drop the fold")
        outside = rows[(rows < 0) | (rows >= n)]
        if len(outside):
            raise _leak(fold, f"{side} {_rows(outside)} out of range, of {n} rows", "count rows from 0")
        values, counts = np.unique(rows, return_counts=True)
        if (counts > 1).any():
            raise _leak(fold, f"{side} {_rows(values[counts > 1])} there twice", "name each row once")
    both = np.intersect1d(fold.train, fold.test)
    if len(both):
        raise _leak(fold, f"{_rows(both)} on both sides", "take test rows out of training")


def _audit_groups(fold: Fold, groups: np.ndarray) -> None:
    both = sorted(set(map(str, groups[fold.train])) & set(map(str, groups[fold.test])))
    if both:
        raise _leak(fold, f"{', '.join(both[:4])} on both sides", "hold out whole groups")


def _audit_buffer(fold: Fold, xy: np.ndarray, buffer_um: float, sections: Sequence[object] | None) -> None:
    names = np.zeros(len(xy)) if sections is None else np.asarray(sections, dtype=object).astype(str)
    for section in np.unique(names[fold.test]):
        train, test = (rows[names[rows] == section] for rows in (fold.train, fold.test))
        if len(train) == 0:
            continue
        close = train[_near(xy[train], xy[test], buffer_um)]
        if len(close):
            found = f"training {_rows(close)} nearer than {buffer_um:g} um to a test row of the same section"
            raise _leak(fold, found, "leave the buffer out of training")


def _leak(fold: Fold, found: str, remedy: str) -> HistoweftError:
    return HistoweftError(f"fold {fold.name!r} cannot be used: {found}; {remedy}")


def _rows(rows: np.ndarray) -> str:
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"row {rows[0]}{more}"


def _near(points: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    from scipy.spatial import cKDTree

    limit = distance * (1 - _ROUNDING)
    return np.isfinite(cKDTree(others).query(points, distance_upper_bound=limit)[0])


def _positions(xy: np.ndarray) -> np.ndarray:
    xy = np.asarray(xy, dtype=np.float64)
    xy = xy[:, None] if xy.ndim == 1 else xy
    absent = ~np.isfinite(xy).all(axis=1)
    if absent.any():
        raise InputError.one(
            "positions",
            f"none for {absent.sum()} of {len(xy)} rows (first: row {np.flatnonzero(absent)[0]})",
            "a finite position for every row",
            "Drop these rows, or give the section its pixel size.",
        )
    return xy


def _check_folds(n_folds: int, n: int, what: str, hint: str) -> None:
    if n_folds < 2:
        raise InputError.one("number of folds", n_folds, "at least 2", "One fold leaves nothing to train on.")
    if n < n_folds:
        raise InputError.one("folds", f"{n} {what} for {n_folds} folds", f"at least {n_folds} {what}", hint)
