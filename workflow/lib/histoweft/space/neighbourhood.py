"""Which groups of cells lie beside one another more often than chance has it, and at what distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.significance import adjust, two_sided
from histoweft.space.values import one_hot

SMALL_GROUP = 20
"""Pairs with a group of fewer members are tested by dealing out labels, not by the normal tail."""

ENRICHMENT_COLUMNS = ("a", "b", "count", "expected", "z", "p", "q", "test", "n_a", "n_b")
COOCCURRENCE_COLUMNS = ("a", "b", "from_um", "to_um", "count", "expected", "ratio", "n_a", "n_b")


@dataclass(frozen=True)
class Shape:
    """Sums over a symmetric graph that the moments of neighbour counts need.

    Attributes
    ----------
    n
        Points.
    total
        Sum of the weights over ordered pairs.
    squares
        Sum of the squared weights over ordered pairs.
    degrees
        Sum over points of the square of their summed weight.
    """

    n: int
    total: float
    squares: float
    degrees: float

    @classmethod
    def of(cls, graph: sp.csr_matrix) -> Shape:
        """Measure a graph without diagonal."""
        rows = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
        squares = float((graph.data.astype(np.float64) ** 2).sum())
        return cls(graph.shape[0], float(rows.sum()), squares, float((rows**2).sum()))


def expected_counts(shape: Shape, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the neighbour counts when labels are dealt out at random.

    Parameters
    ----------
    shape
        The graph.
    sizes
        Members of each group, (groups,); together all points of the graph, or fewer.

    Returns
    -------
    mean, variance
        groups x groups; of the sum of w_ij over ordered pairs with i in group a and j in group b.

    Notes
    -----
    Join counts without replacement (Cliff and Ord 1981, Spatial Processes, section 2.2; Epperson 2003, Geographical
    Genetics, chapter 3). Two ordered pairs of points are the same pair, the same pair backwards, meet in one point,
    or are apart; a term counts where each point is in one group only, with the chance of drawing its groups.
    """
    n = shape.n
    a, b = np.meshgrid(sizes.astype(float), sizes.astype(float), indexing="ij")
    same = np.eye(len(sizes), dtype=bool)
    meeting = shape.degrees - shape.squares
    apart = shape.total**2 - 4 * meeting - 2 * shape.squares

    def chance(*left: np.ndarray) -> np.ndarray:
        """Divide a product of `len(left)` factors by n (n - 1) ..."""
        return np.prod(left, axis=0) / np.prod([max(n - k, 1) for k in range(len(left))])

    first = np.where(same, chance(a, a - 1), chance(a, b))
    within = (
        2 * shape.squares * chance(a, a - 1)
        + 4 * meeting * chance(a, a - 1, a - 2)
        + apart * chance(a, a - 1, a - 2, a - 3)
    )
    between = (
        shape.squares * chance(a, b)
        + meeting * (chance(a, b, b - 1) + chance(b, a, a - 1))
        + apart * chance(a, a - 1, b, b - 1)
    )
    mean = shape.total * first
    return mean, np.maximum(np.where(same, within, between) - mean**2, 0)


def neighbour_counts(graph: sp.csr_matrix, codes: np.ndarray, n_groups: int) -> np.ndarray:
    """Sum the weights over ordered pairs of neighbours by their groups, groups x groups."""
    members = one_hot(codes, n_groups)
    return np.asarray((members.T @ (graph @ members)).todense())


def deal_labels(
    graph: sp.csr_matrix, sizes: np.ndarray, group: int, times: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the neighbour counts of one small group under random labels.

    Only the members' places and the labels beside them are drawn, so a draw costs the same in any size of section.

    Parameters
    ----------
    graph
        Symmetric, without diagonal; every point has a label.
    sizes
        Members of each group, in all the points of the graph.
    group
        Which group.
    times
        Draws.

    Returns
    -------
    times x groups.
    """
    n, size = graph.shape[0], int(sizes[group])
    others = sizes.copy()
    others[group] = 0
    edges = np.cumsum(others)
    drawn = np.zeros((times, len(sizes)))
    label = np.full(n, -1, dtype=np.int64)
    for draw in drawn:
        members = rng.choice(n, size, replace=False)
        spans = [slice(graph.indptr[i], graph.indptr[i + 1]) for i in members]
        beside = np.concatenate([graph.indices[span] for span in spans])
        weight = np.concatenate([graph.data[span] for span in spans])
        label[members] = group
        free = np.unique(beside)
        free = free[label[free] < 0]
        label[free] = np.searchsorted(edges, rng.choice(n - size, len(free), replace=False), side="right")
        draw[:] = np.bincount(label[beside], weights=weight, minlength=len(sizes))
        label[members] = -1
        label[free] = -1
    return drawn


def _p_of_draws(drawn: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return two-sided p-values of observed counts among random ones, times x groups."""
    above = (drawn >= seen - 1e-9).sum(axis=0)
    below = (drawn <= seen + 1e-9).sum(axis=0)
    return np.minimum(2 * (np.minimum(above, below) + 1) / (len(drawn) + 1), 1)


def enrichment(
    graph: sp.csr_matrix, labels: pd.Categorical, draws: int = 10_000, seed: int = 0, small: int = SMALL_GROUP
) -> pd.DataFrame:
    """Compare how often groups are neighbours with what random labels on the same graph would give.

    Parameters
    ----------
    graph
        Symmetric neighbours, without diagonal.
    labels
        Group of each point; points without one are left out with their edges.
    draws
        Random labellings for pairs with a group of fewer than `small` members.
    seed
        Of the draws.

    Returns
    -------
    `ENRICHMENT_COLUMNS`, one row an ordered pair of groups: count (ordered pairs of neighbours; those inside a group
    count twice), expected, z (with the exact variance), p (two-sided), q (Benjamini-Hochberg over unordered pairs),
    test (normal or permutation), members of both groups.
    """
    codes = np.asarray(labels.codes)
    known = np.flatnonzero(codes >= 0)
    if len(known) < len(codes):
        graph, codes = graph[known][:, known], codes[known]
    names = labels.categories.astype(str)
    k = len(names)
    sizes = np.bincount(codes, minlength=k)
    seen = neighbour_counts(graph, codes, k)
    mean, variance = expected_counts(Shape.of(graph), sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(variance > 0, (seen - mean) / np.sqrt(variance), np.nan)
    p = two_sided(z)
    test = np.full((k, k), "normal", dtype=object)
    for group in np.flatnonzero((sizes < small) & (sizes > 0)):
        # One stream for each group: its p-values do not depend on which others are small.
        drawn = deal_labels(graph, sizes, group, draws, np.random.default_rng([seed, group]))
        found = np.where(np.isfinite(z[group]), _p_of_draws(drawn, seen[group]), np.nan)
        p[group], p[:, group] = found, found
        test[group], test[:, group] = "permutation", "permutation"
    upper = np.triu_indices(k)
    q = np.full((k, k), np.nan)
    q[upper] = adjust(p[upper])
    q.T[upper] = q[upper]
    a, b = np.divmod(np.arange(k * k), k)
    table = pd.DataFrame({"a": names[a], "b": names[b], "count": seen.ravel(), "expected": mean.ravel()})
    table = table.assign(z=z.ravel(), p=p.ravel(), q=q.ravel(), test=test.ravel(), n_a=sizes[a], n_b=sizes[b])
    return table[list(ENRICHMENT_COLUMNS)]


# ---------------------------------------------------------------------------------------------- over distance


def pair_counts(xy: np.ndarray, codes: np.ndarray, n_groups: int, edges: np.ndarray) -> np.ndarray:
    """Count ordered pairs of different points by their groups and distance.

    Parameters
    ----------
    xy
        Positions, (n, 2).
    codes
        Group of each point.
    edges
        Borders of the distance bands, (bands + 1,), rising; a pair at a border belongs to the band below it.

    Returns
    -------
    groups x groups x bands; exact. Two trees are walked together (Gray and Moore 2001), so that no list of pairs is
    ever formed.
    """
    from scipy.spatial import cKDTree

    trees = [cKDTree(xy[codes == group]) if (codes == group).any() else None for group in range(n_groups)]
    counts = np.zeros((n_groups, n_groups, len(edges) - 1))
    for a in range(n_groups):
        for b in range(a, n_groups):
            if trees[a] is None or trees[b] is None:
                continue
            within = trees[a].count_neighbors(trees[b], edges).astype(float)
            if a == b:
                within -= trees[a].n
            counts[a, b] = counts[b, a] = np.diff(within)
            # The first band takes in pairs at one place.
            counts[a, b, 0] += within[0] if edges[0] == 0 else 0
            counts[b, a, 0] = counts[a, b, 0]
    return counts


def cooccurrence(
    xy: np.ndarray, labels: pd.Categorical, pitch: float, bands: int = 10, band_um: float | None = None
) -> pd.DataFrame:
    """Say how much more often a group is met at some distance from another than the tissue's make-up has it.

    Parameters
    ----------
    xy
        Positions, (n, 2).
    labels
        Group of each point; points without one are left out.
    pitch
        Distance between neighbouring points; a band is twice as wide unless `band_um` says otherwise.
    bands
        How many bands.
    band_um
        Width of a band, in the units of `xy`.

    Returns
    -------
    `COOCCURRENCE_COLUMNS`: for each ordered pair of groups and band the count of ordered pairs of points, the count
    expected from the share of each group among all points of the band's pairs, and their ratio, P(b at this distance
    from a) / P(b at this distance), as squidpy defines it but within the band and not within a distance.
    """
    codes = np.asarray(labels.codes)
    known = codes >= 0
    xy, codes = xy[known], codes[known]
    names = labels.categories.astype(str)
    k = len(names)
    width = 2 * pitch if band_um is None else band_um
    # A hair beyond, so that points of a lattice are not torn apart by rounding.
    edges = np.arange(bands + 1) * width * (1 + 1e-6)
    counts = pair_counts(xy, codes, k, edges)
    share = counts.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = share[:, None] * share[None] / share.sum(axis=0)
        ratio = np.where(expected > 0, counts / expected, np.nan)
    sizes = np.bincount(codes, minlength=k)
    a, b, band = (axis.ravel() for axis in np.indices(counts.shape))
    table = pd.DataFrame({"a": names[a], "b": names[b], "from_um": band * width, "to_um": (band + 1) * width})
    table = table.assign(count=counts.ravel(), expected=expected.ravel(), ratio=ratio.ravel())
    return table.assign(n_a=sizes[a], n_b=sizes[b])[list(COOCCURRENCE_COLUMNS)]
