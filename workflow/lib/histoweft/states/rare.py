"""Rare populations and transitional barcodes, against samples that hold nothing but a mixture of plain states.

The null is a parametric bootstrap: as many barcodes drawn from one normal distribution for each large cluster, in the
principal components, go through the same search. What the search finds there, it finds without any rare population.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from histoweft.graph.leiden import as_igraph, leiden
from histoweft.graph.neighbours import neighbour_graph
from histoweft.significance import adjust

RESOLUTIONS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""At which the graph is cut into candidate groups."""

NULL_BARCODES = 10_000
"""Barcodes drawn for one null sample at most."""

_EULER = 0.5772156649
_FEWEST_NULL = 5


@dataclass(frozen=True)
class Group:
    """A candidate: a small group of barcodes that the graph holds together.

    Attributes
    ----------
    members
        Places of its barcodes.
    inside
        Share of the weight of its members' links that stays inside.
    """

    members: np.ndarray
    inside: float


@dataclass(frozen=True)
class Null:
    """What the search finds in samples without rare populations.

    Attributes
    ----------
    slope, intercept, spread
        Isolation (logit of `Group.inside`) of null groups against the logarithm of their size, and its residual spread.
    location, scale
        Of the Gumbel distribution of the largest standardised isolation of a null sample.
    candidates
        Candidates of a null sample, on average.
    mixing
        Mixing of all null barcodes, sorted; see `mixing`.
    """

    slope: float
    intercept: float
    spread: float
    location: float
    scale: float
    candidates: float
    mixing: np.ndarray = field(repr=False)

    def isolation(self, group: Group) -> float:
        """Return how far a group's isolation exceeds that of null groups of its size, in standard deviations."""
        expected = self.intercept + self.slope * np.log(len(group.members))
        return float((_logit(group.inside) - expected) / self.spread)

    def p_value(self, isolation: np.ndarray, candidates: int) -> np.ndarray:
        """Return the chance that any of so many candidates of a sample without rare populations is as isolated."""
        shift = np.log(max(candidates / max(self.candidates, 1), 1))
        return -np.expm1(-np.exp(-(np.asarray(isolation) - self.location - self.scale * shift) / self.scale))


@dataclass(frozen=True)
class Rare:
    """Rare populations of one sample.

    Attributes
    ----------
    groups
        Those found, the most isolated first; they share no barcodes.
    p
        Of each, for the whole sample (family-wise).
    isolation
        Of each, in standard deviations of null groups of its size.
    score
        (n,) isolation of the most isolated candidate a barcode is in; 0 where it is in none, or in none above 0.
    """

    groups: list[Group]
    p: list[float]
    isolation: list[float]
    score: np.ndarray


def states(clusters: np.ndarray, points: np.ndarray, least: int) -> np.ndarray:
    """Merge clusters of fewer than `least` barcodes into the nearest larger one, for a null without rare populations.

    Parameters
    ----------
    clusters
        (n,) labels.
    points
        (n, components).
    least
        Barcodes a state must have.

    Returns
    -------
    (n,) numbers from 0. One state where no cluster is large enough.
    """
    _, codes = np.unique(clusters.astype(str), return_inverse=True)
    sizes = np.bincount(codes)
    large = np.flatnonzero(sizes >= least)
    if len(large) == 0:
        return np.zeros(len(codes), dtype=np.int64)
    centres = np.array([points[codes == code].mean(axis=0) for code in range(len(sizes))])
    gaps = ((centres[:, None] - centres[large][None]) ** 2).sum(axis=2)
    return gaps.argmin(axis=1)[codes]


def candidates(graph: sp.csr_matrix, least: int, most: int, seed: int = 0) -> list[Group]:
    """Cut the graph at rising resolutions and return the groups of `least` to `most` barcodes.

    Parameters
    ----------
    graph
        Weighted symmetric graph of nearest neighbours.
    """
    made, found, known = as_igraph(graph), [], set()
    degree = np.asarray(graph.sum(axis=1)).ravel()
    for resolution in RESOLUTIONS:
        labels = leiden(made, resolution, seed=seed)
        sizes = np.bincount(labels)
        edges = graph.tocoo()
        same = labels[edges.row] == labels[edges.col]
        inside = np.bincount(labels[edges.row[same]], weights=edges.data[same], minlength=len(sizes))
        total = np.bincount(labels, weights=degree, minlength=len(sizes))
        order = np.argsort(labels, kind="stable")
        ends = np.cumsum(sizes)
        for label in np.flatnonzero((sizes >= least) & (sizes <= most) & (total > 0)):
            members = np.sort(order[ends[label] - sizes[label] : ends[label]])
            key = members.tobytes()
            if key not in known:
                known.add(key)
                found.append(Group(members, float(inside[label] / total[label])))
    return found


def mixing(graph: sp.csr_matrix, codes: np.ndarray) -> np.ndarray:
    """Return how evenly each barcode's neighbours belong to different states: entropy, 0 to 1.

    Parameters
    ----------
    graph
        Weights of neighbours.
    codes
        State of each barcode, from 0.

    Returns
    -------
    (n,) entropy of the weighted shares over the logarithm of the number of states; 0 with one state.
    """
    n, k = graph.shape[0], int(codes.max()) + 1
    if k < 2:
        return np.zeros(n)
    member = sp.csr_matrix((np.ones(n), (np.arange(n), codes)), shape=(n, k))
    weight = (graph @ member + 1e-12 * member).toarray()
    share = weight / weight.sum(axis=1, keepdims=True)
    return -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1) / np.log(k)


def null_samples(points: np.ndarray, codes: np.ndarray, k: int, n_samples: int, seed: int) -> Iterator[tuple]:
    """Draw samples of plain states: one normal distribution each, with the mean and covariance of its barcodes.

    Parameters
    ----------
    points
        (n, components).
    codes
        State of each barcode.
    k
        Neighbours in the graph, the barcode itself included.
    n_samples
        To draw.
    seed
        Of the draws.

    Yields
    ------
    Graph of nearest neighbours and states of the drawn barcodes, as many as the sample has, `NULL_BARCODES` at most.
    """
    from sklearn.covariance import ledoit_wolf

    rng = np.random.default_rng(seed)
    n = min(len(points), NULL_BARCODES)
    shares = np.bincount(codes) / len(codes)
    centres, roots = [], []
    for code in range(len(shares)):
        own = points[codes == code].astype(float)
        centres.append(own.mean(axis=0))
        values, axes = np.linalg.eigh(ledoit_wolf(own)[0])
        roots.append(axes * np.sqrt(np.maximum(values, 0)))
    for _ in range(n_samples):
        drawn = np.sort(rng.choice(len(shares), n, p=shares))
        noise = rng.standard_normal((n, points.shape[1]))
        places = np.concatenate([centres[code] + noise[drawn == code] @ roots[code].T for code in np.unique(drawn)])
        yield neighbour_graph(places.astype(np.float32), k, seed)[0], drawn


def learn_null(
    points: np.ndarray, codes: np.ndarray, k: int, least: int, most_share: float, n_samples: int, seed: int = 0
) -> Null:
    """Search samples without rare populations.

    Parameters
    ----------
    points, codes, k, n_samples, seed
        See `null_samples`.
    least
        Barcodes of a candidate at least.
    most_share
        Share of a sample's barcodes that a candidate has at most.
    """
    sizes, isolations, sample, mixed = [], [], [], []
    for number, (graph, drawn) in enumerate(null_samples(points, codes, k, n_samples, seed)):
        for group in candidates(graph, least, int(most_share * len(drawn)), seed):
            sizes.append(np.log(len(group.members)))
            isolations.append(_logit(group.inside))
            sample.append(number)
        mixed.append(mixing(graph, drawn))
    sizes, isolations, sample = np.array(sizes), np.array(isolations), np.array(sample, dtype=int)
    ordered = np.sort(np.concatenate(mixed))
    if len(set(sample)) < _FEWEST_NULL:
        return Null(0.0, np.inf, 1.0, 0.0, 1.0, len(sizes) / n_samples, ordered)
    slope = np.polyfit(sizes, isolations, 1)[0] if np.ptp(sizes) > 0 else 0.0
    intercept = (isolations - slope * sizes).mean()
    rest = isolations - slope * sizes - intercept
    spread = max(float(rest.std()), 1e-6)
    largest = np.array([rest[sample == number].max() / spread for number in np.unique(sample)])
    # Moments of the Gumbel distribution, the limit of maxima (Gumbel 1958).
    scale = max(float(largest.std(ddof=1)) * np.sqrt(6) / np.pi, 1e-3)
    location = float(largest.mean()) - _EULER * scale
    return Null(float(slope), float(intercept), spread, location, scale, len(sizes) / n_samples, ordered)


def find(graph: sp.csr_matrix, null: Null, least: int, most_share: float, rate: float, seed: int = 0) -> Rare:
    """Find groups that are more isolated than any group of a sample without rare populations would be.

    Parameters
    ----------
    graph
        Nearest neighbours of the sample.
    null
        See `learn_null`.
    least, most_share
        Size of a rare population: barcodes at least, share of the sample at most.
    rate
        Chance that anything is found in a sample without rare populations.
    seed
        Of the clustering.
    """
    n = graph.shape[0]
    groups = candidates(graph, least, int(most_share * n), seed)
    isolation = np.array([null.isolation(group) for group in groups])
    score = np.zeros(n)
    for group, value in zip(groups, isolation):
        score[group.members] = np.maximum(score[group.members], value)
    p = null.p_value(isolation, len(groups)) if groups else np.zeros(0)
    taken, kept = np.zeros(n, dtype=bool), []
    for at in np.argsort(-isolation, kind="stable"):
        if p[at] <= rate and not taken[groups[at].members].any():
            taken[groups[at].members] = True
            kept.append(int(at))
    return Rare(
        [groups[at] for at in kept], [float(p[at]) for at in kept], [float(isolation[at]) for at in kept], score
    )


def transitional(mixed: np.ndarray, null: Null, fdr: float) -> np.ndarray:
    """Call barcodes between states more often than plain states that touch would have them.

    Parameters
    ----------
    mixed
        See `mixing`.
    fdr
        False discovery rate (Benjamini and Hochberg).
    """
    beyond = len(null.mixing) - np.searchsorted(null.mixing, mixed, side="left")
    return adjust((beyond + 1) / (len(null.mixing) + 1)) <= fdr


def smallest_cluster(clusters: Sequence[str]) -> np.ndarray:
    """Return the members of the smallest cluster, the floor of every search for rare populations; (n,) bool."""
    _, codes, sizes = np.unique(np.asarray(clusters, dtype=str), return_inverse=True, return_counts=True)
    return codes == sizes.argmin()


def _logit(share: float) -> float:
    share = min(max(share, 1e-4), 1 - 1e-4)
    return float(np.log(share / (1 - share)))
