"""Domains: regions of like expression, found in all sections of a study together.

The default is a consensus over many simple views (see `histoweft.space.views`). Each view is cut into domains by a
Gaussian mixture with one covariance for all domains; the partitions are aligned and vote; the votes are evened out
over neighbours. No setting is chosen on the study itself; `benchmarks/space_domains.py` tells where they come from.

Each section is centred on its own, which removes a batch effect, but also a true difference in what sections are made
of. On layered tissue the consensus beats its floors, on breast tumours of several patients it does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.graph.leiden import by_size
from histoweft.space.views import SAMPLED, Tissue, View, averaging, default_views, draw_rows, iterate_views

DEFAULT = "consensus"
FLOORS = ("leiden", "smoothed_pca")

DEPTHS = (8, 15)
"""Numbers of components that partitions are made from."""

WHITENINGS = (0.0, 0.5)
"""How far components are brought to equal variance before k-means starts the mixture: 0 not at all, 1 fully."""

STRENGTH = 2.0
"""Weight of the neighbours' agreement against the logarithm of the votes."""

MOST_DOMAINS = 15
"""Largest number of domains that is tried when the number is to be estimated."""

PARSIMONY = 0.1
"""Share of the criterion's range within which a smaller number of domains is preferred."""

_STEPS = 100
_TOLERANCE = 1e-3
_SWEEPS = 10
_ADJACENT = 6
_FLOOR_NEIGHBOURS = 18
_DOUBT = 0.02


# ---------------------------------------------------------------------------------------------- tied mixtures


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture whose components share one covariance.

    Attributes
    ----------
    whiten
        (d, d) matrix that turns points such that the covariance is the unit matrix.
    means
        (k, d), of turned points.
    log_weights
        (k,).
    log_likelihood
        Mean over the points it was fitted to.
    """

    whiten: np.ndarray
    means: np.ndarray
    log_weights: np.ndarray
    log_likelihood: float

    def log_joint(self, points: np.ndarray) -> np.ndarray:
        """Return log(weight x density) up to a constant that all components share, (n, k)."""
        turned = points @ self.whiten
        return turned @ self.means.T - 0.5 * (self.means**2).sum(axis=1) + self.log_weights

    def assign(self, points: np.ndarray) -> np.ndarray:
        """Return the likeliest component of each point."""
        return self.log_joint(points).argmax(axis=1).astype(np.int16)


def tied_mixture(points: np.ndarray, n: int, seed: int = 0, whitening: float = 0.0) -> Mixture:
    """Fit a Gaussian mixture with a covariance that all components share, by expectation maximisation.

    Parameters
    ----------
    points
        (m, d), more points than `n`.
    n
        Components.
    seed
        Of the k-means that it starts from.
    whitening
        For that start only, dimensions are divided by their standard deviation to this power.

    Notes
    -----
    Dempster, Laird and Rubin 1977. With one covariance the total scatter is fixed, and a step needs only the
    memberships' sums.
    """
    from scipy.linalg import solve_triangular
    from sklearn.cluster import KMeans

    points = np.asarray(points, dtype=np.float64)
    m, d = points.shape
    spread = np.maximum(points.std(axis=0), 1e-9)
    start = KMeans(n, n_init=1, random_state=seed).fit_predict(points / spread**whitening)
    members = np.eye(n)[start]
    scatter, before = points.T @ points, -np.inf
    for _ in range(_STEPS):
        sizes = members.sum(axis=0) + 1e-9
        means = (members.T @ points) / sizes[:, None]
        covariance = (scatter - (means.T * sizes) @ means) / m
        covariance[np.diag_indices(d)] += 1e-6 * spread.max() ** 2
        lower = np.linalg.cholesky(covariance)
        whiten = solve_triangular(lower, np.eye(d), lower=True).T
        found = Mixture(whiten, means @ whiten, np.log(sizes / m), 0.0)
        joint = found.log_joint(points)
        top = joint.max(axis=1, keepdims=True)
        members = np.exp(joint - top)
        total = members.sum(axis=1, keepdims=True)
        members /= total
        constant = 0.5 * ((points @ whiten) ** 2).sum() / m + 0.5 * d * np.log(2 * np.pi) + np.log(np.diag(lower)).sum()
        likelihood = float((top + np.log(total)).mean() - constant)
        if likelihood - before < _TOLERANCE:
            break
        before = likelihood
    return Mixture(whiten, found.means, found.log_weights, likelihood)


# ------------------------------------------------------------------------------------------------- consensus


def agreement(first: np.ndarray, second: np.ndarray, n: int) -> float:
    """Return the adjusted Rand index of two partitions into numbers below `n` (see `histoweft.metrics`)."""
    table = np.bincount(first.astype(np.int64) * n + second, minlength=n * n).reshape(n, n).astype(float)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1)).sum() / 2)

    both, one, other = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    m = float(len(first))
    expected = one * other / (m * (m - 1) / 2)
    largest = (one + other) / 2
    return 1.0 if largest == expected else (both - expected) / (largest - expected)


def agreements(partitions: np.ndarray, n: int) -> np.ndarray:
    """Return the adjusted Rand index between all partitions, (p, points) to (p, p)."""
    found = np.eye(len(partitions))
    for i, first in enumerate(partitions):
        for j in range(i):
            found[i, j] = found[j, i] = agreement(first, partitions[j], n)
    return found


def vote(partitions: np.ndarray, n: int, rows: np.ndarray | None = None) -> np.ndarray:
    """Let partitions vote on the domain of each point.

    Parameters
    ----------
    partitions
        (p, points), numbers below `n`; the numbers of one partition mean nothing to another.
    n
        Domains.
    rows
        Points on which partitions are compared; all when left out.

    Returns
    -------
    (points, n) float32: share of the partitions that say so.

    Notes
    -----
    Cumulative voting: the partition that agrees best with all others names the domains; every partition is renamed to
    agree best with the names (Kuhn 1955), and the winners of the vote give the next names until they stay.
    """
    from scipy.optimize import linear_sum_assignment

    compared = partitions if rows is None else partitions[:, rows]
    names = partitions[agreements(compared, n).sum(axis=0).argmax()]
    for _ in range(5):
        votes = np.zeros((partitions.shape[1], n), dtype=np.float32)
        for partition in partitions:
            table = np.bincount(names.astype(np.int64) * n + partition, minlength=n * n).reshape(n, n)
            named, own = linear_sum_assignment(-table)
            renamed = np.empty(n, dtype=np.int64)
            renamed[own] = named
            votes[np.arange(len(names)), renamed[partition]] += 1
        winners = votes.argmax(axis=1).astype(names.dtype)
        if (winners == names).all():
            break
        names = winners
    return votes / len(partitions)


def even_out(votes: np.ndarray, around: sp.csr_matrix, strength: float = STRENGTH) -> np.ndarray:
    """Choose each point's domain by its votes and by the domains of its neighbours.

    Parameters
    ----------
    votes
        (points, domains), shares.
    around
        (points, points), weights of the neighbours, rows sum to one.
    strength
        Of the neighbours: what a full agreement of the neighbours adds to the logarithm of a vote.

    Returns
    -------
    (points,) domain.

    Notes
    -----
    Iterated conditional modes of a Potts model (Besag 1986), all points at once.
    """
    n = votes.shape[1]
    own = np.log(votes + _DOUBT)
    chosen = votes.argmax(axis=1)
    for _ in range(_SWEEPS):
        agree = around @ np.eye(n, dtype=np.float32)[chosen]
        after = (own + strength * agree).argmax(axis=1)
        if (after == chosen).all():
            break
        chosen = after
    return chosen


# ---------------------------------------------------------------------------------------------------- domains


@dataclass(frozen=True)
class Domains:
    """Domains of all points of a study.

    Attributes
    ----------
    labels
        (points,) numbers, 0 the largest domain.
    confidence
        (points,) share of the votes that the domain got.
    votes
        (points, domains) in the same numbering.
    agreement
        Mean adjusted Rand index between the partitions that voted.
    """

    labels: np.ndarray
    confidence: np.ndarray
    votes: np.ndarray
    agreement: float


def neighbours_within(near: np.ndarray, k: int = _ADJACENT) -> sp.csr_matrix:
    """Return equal weights of each point's `k` nearest others, (n, n); rows sum to one, no diagonal."""
    n, k = len(near), min(k, near.shape[1])
    weights = np.full(n * k, 1 / k, dtype=np.float32)
    return sp.csr_matrix((weights, near[:, :k].ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))


def neighbours_of(tissue: Tissue, k: int = _ADJACENT) -> sp.csr_matrix:
    """Return the weights of `neighbours_within` for all sections, one block each."""
    return sp.block_diag([neighbours_within(near, k) for near in tissue.near], format="csr")


def fit_partitions(
    views: Iterable[tuple[View, np.ndarray]], n: int, seed: int = 0, sizes: Sequence[int] = ()
) -> np.ndarray:
    """Cut each view into domains, once for each of `DEPTHS` and `WHITENINGS`.

    Parameters
    ----------
    views
        As `histoweft.space.views.iterate_views` yields them.
    n
        Domains.
    seed
        Every partition starts from another number drawn from it.
    sizes
        Points of each section, for the sample that mixtures are fitted to in large studies; one section when empty.

    Returns
    -------
    (partitions, points) int16.
    """
    partitions = []
    generator = np.random.default_rng(seed)
    for _, scores in views:
        depths = sorted({min(depth, scores.shape[1]) for depth in DEPTHS})
        for depth in depths:
            for whitening in WHITENINGS:
                start = int(generator.integers(2**31))
                rows = _sample(sizes or [len(scores)], start)
                found = tied_mixture(scores[rows, :depth], n, start, whitening)
                partitions.append(found.assign(scores[:, :depth]))
    return np.array(partitions)


def _sample(sizes: Sequence[int], seed: int, most: int = SAMPLED) -> np.ndarray:
    """Draw rows over all sections; see `draw_rows`."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.concatenate([start + rows for start, rows in zip(starts, draw_rows(sizes, seed, most))])


def consensus(partitions: np.ndarray, n: int, around: sp.csr_matrix, sizes: Sequence[int] = ()) -> Domains:
    """Join partitions into domains; see `vote` and `even_out`."""
    rows = _sample(sizes or [partitions.shape[1]], 0)
    votes = vote(partitions, n, rows)
    labels = even_out(votes, around)
    between = agreements(partitions[:, rows], n)
    upper = between[np.triu_indices(len(between), 1)]
    numbered = by_size(labels)
    order = _order_of(labels, numbered, n)
    votes = votes[:, order]
    shares = votes[np.arange(len(votes)), numbered]
    return Domains(numbered, shares, votes, float(upper.mean()) if len(upper) else 1.0)


def _order_of(labels: np.ndarray, numbered: np.ndarray, n: int) -> np.ndarray:
    """Return which column of the votes each number has; domains that nobody got come last."""
    order = np.full(n, -1)
    order[numbered] = labels
    order[order < 0] = np.setdiff1d(np.arange(n), labels)
    return order


def find_domains(tissue: Tissue, n: int, seed: int = 0) -> Domains:
    """Find domains in all sections together, with the frozen setting.

    Parameters
    ----------
    tissue
        All sections.
    n
        Number of domains.
    seed
        Of every start.
    """
    check_number(n, int(tissue.sizes.sum()))
    views = iterate_views(tissue, default_views(len(tissue.genes)))
    partitions = fit_partitions(views, n, seed, list(tissue.sizes))
    return consensus(partitions, n, neighbours_of(tissue), list(tissue.sizes))


def check_number(n: int, points: int) -> None:
    """Refuse a number of domains that the study is too small for."""
    if not 2 <= n <= points // 5:
        raise InputError.one("config: space.domains.n", n, f"2 to {points // 5} for {points} barcodes")


def estimate_number(tissue: Tissue, most: int = MOST_DOMAINS, seed: int = 0) -> pd.DataFrame:
    """Compare numbers of domains by the Bayesian information criterion of the mixture of one middle view.

    Parameters
    ----------
    tissue
        All sections.
    most
        Largest number tried.

    Returns
    -------
    n, log_likelihood (mean over points), criterion (smaller is better), chosen: the smallest number whose criterion
    lies within a tenth of the range from the smallest one.

    Notes
    -----
    Schwarz 1978. An average over k + 1 points is k + 1 times as correlated with its neighbours' averages, so points
    count as (points / (k + 1)) independent ones; else every study would have as many domains as are tried.
    """
    middle = [view for view in default_views(len(tissue.genes)) if not view.unit_variance]
    view = middle[len(middle) // 2]
    scores = next(iter(iterate_views(tissue, [view])))[1][:, : min(DEPTHS)]
    rows = _sample(list(tissue.sizes), seed)
    independent = len(scores) / (min(view.neighbours, tissue.near[0].shape[1]) + 1)
    d = scores.shape[1]
    table = []
    for n in range(2, min(most, max(2, int(independent) // 2), max(2, len(scores) // 5)) + 1):
        fits = [tied_mixture(scores[rows], n, seed + start, 0.5).log_likelihood for start in range(3)]
        parameters = n * d + n - 1 + d * (d + 1) / 2
        table.append((n, max(fits), parameters * np.log(independent) - 2 * independent * max(fits)))
    found = pd.DataFrame(table, columns=["n", "log_likelihood", "criterion"])
    low, high = found["criterion"].min(), found["criterion"].max()
    found["chosen"] = found["n"] == found["n"][found["criterion"] <= low + PARSIMONY * (high - low)].min()
    return found


def chosen_number(numbers: pd.DataFrame, wanted: int | None) -> int:
    """Return the number of domains wanted, or the one that `estimate_number` chose."""
    return wanted or int(numbers["n"][numbers["chosen"]].iloc[0])


# ------------------------------------------------------------------------------------------------------ floors


def blind_scores(tissue: Tissue) -> np.ndarray:
    """Return principal components of expression without any averaging over the tissue, (points, `DEPTH`)."""
    return next(iter(iterate_views(tissue, [View(len(tissue.genes), False, 0)])))[1]


def leiden_floor(scores: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Cluster components by Leiden, its resolution searched such that about `n` clusters come out.

    Parameters
    ----------
    scores
        As of `blind_scores`.
    n
        Clusters wanted.
    seed
        Of Leiden, and of the sample of points that is clustered in large studies; the others join the cluster whose
        mean is nearest.
    """
    from histoweft.graph.leiden import as_igraph, leiden
    from histoweft.graph.neighbours import neighbour_graph

    rows = _sample([len(scores)], seed)
    graph = as_igraph(neighbour_graph(scores[rows])[0])
    low, high, best = 0.0, 4.0, None
    for _ in range(14):
        middle = (low + high) / 2
        found = leiden(graph, middle, seed=seed)
        clusters = int(found.max()) + 1
        if best is None or abs(clusters - n) < abs(int(best.max()) + 1 - n):
            best = found
        if clusters == n:
            break
        low, high = (middle, high) if clusters < n else (low, middle)
    if len(rows) == len(scores):
        return best
    means = np.array([scores[rows][best == cluster].mean(axis=0) for cluster in range(best.max() + 1)])
    return (scores @ means.T - 0.5 * (means**2).sum(axis=1)).argmax(axis=1)


def smoothed_pca_floor(tissue: Tissue, scores: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Average components over each point and its 18 nearest others, and cut them by k-means."""
    from sklearn.cluster import KMeans

    parts = [
        averaging(near, _FLOOR_NEIGHBOURS) @ part for near, part in zip(tissue.near, tissue.split(scores), strict=True)
    ]
    smooth = np.concatenate(parts)
    rows = _sample(list(tissue.sizes), seed)
    return by_size(KMeans(n, n_init=3, random_state=seed).fit(smooth[rows]).predict(smooth))


def domain_tables(
    tissue: Tissue, found: Domains, floors: dict[str, np.ndarray], method: str = DEFAULT
) -> dict[str, pd.DataFrame]:
    """Write domains as one table a section.

    Parameters
    ----------
    tissue
        All sections.
    found
        The consensus.
    floors
        Name to numbers of all points.
    method
        Whose domains the column ``domain`` holds.

    Returns
    -------
    Sample to a table; index: barcodes; domain, one column for each method, and confidence (share of the consensus'
    votes). Domains are categories "1", "2", ..., the largest in the study first, the same in every section.
    """
    methods = {DEFAULT: found.labels, **floors}
    columns = {name: _named(by_size(labels)) for name, labels in {"domain": methods[method], **methods}.items()}
    table = pd.DataFrame(columns | {"confidence": found.confidence.astype(np.float32)})
    return split_table(tissue, table)


def split_table(tissue: Tissue, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Cut a table over all points into one a section, indexed by barcode."""
    return {
        sample: table.iloc[span].set_axis(pd.Index(barcodes, name="barcode"))
        for sample, span, barcodes in zip(tissue.samples, tissue.spans, tissue.barcodes)
    }


def _named(labels: np.ndarray) -> pd.Categorical:
    return pd.Categorical.from_codes(labels, [str(number + 1) for number in range(int(labels.max()) + 1)])
