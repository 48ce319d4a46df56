"""The genes that scores are averaged over, chosen on training spots only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.floors import components
from histoweft.normalise import row_sums

_VALUES = 4_000_000
"""Dense values held at a time."""

_COMPONENTS = 20
"""Components that spots are clustered on for the marker panel."""


@dataclass(frozen=True)
class Panel:
    """A set of genes.

    Attributes
    ----------
    name
        As metrics carry it: ``pearson_<name>``.
    genes
        Column numbers, best first where there is an order.
    """

    name: str
    genes: np.ndarray

    @property
    def label(self) -> str:
        """Name and size, for the panel column of the metrics table."""
        return f"{self.name} ({len(self.genes)})"


def top_variable(counts_train: sp.csr_matrix, n: int = 50, theta: float = 100.0) -> Panel:
    """Choose the genes that vary more than their mean and the spots' totals explain.

    Parameters
    ----------
    counts_train
        training spots x genes, raw counts.
    n
        Genes wanted; fewer where fewer were counted.
    theta
        Overdispersion of the negative binomial.

    Returns
    -------
    Panel
        ``top50`` for 50 genes, by falling variance.

    Raises
    ------
    InputError
        No counts at all.

    Notes
    -----
    Variance of analytic Pearson residuals, clipped at the square root of the number of spots: Lause, Berens and Kobak
    2021, doi:10.1186/s13059-021-02451-7.
    """
    counts = sp.csc_matrix(counts_train)
    n_spots, n_genes = counts.shape
    totals = row_sums(counts)
    per_gene = np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel()
    counted = np.flatnonzero(per_gene > 0)
    if len(counted) == 0:
        raise InputError.one("training spots", "no counts", "counts of at least one gene")
    there = totals > 0
    share = totals[there] / totals.sum()
    variance = np.full(n_genes, -1.0)
    limit = np.sqrt(n_spots)
    width = max(1, _VALUES // n_spots)
    for start in range(0, len(counted), width):
        genes = counted[start : start + width]
        expected = np.outer(share, per_gene[genes])
        residual = counts[:, genes].toarray()[there] - expected
        residual /= np.sqrt(expected + expected**2 / theta)
        variance[genes] = np.clip(residual, -limit, limit, out=residual).var(axis=0)
    best = np.argsort(-variance, kind="stable")[: min(n, len(counted))]
    return Panel(f"top{n}", best)


def markers(
    Y_train: sp.csr_matrix,
    n_clusters: int = 8,
    per_cluster: int = 2,
    seed: int = 0,
    scores: np.ndarray | None = None,
) -> Panel:
    """Choose the genes that tell clusters of training spots apart.

    Parameters
    ----------
    Y_train
        training spots x genes, log-normalised.
    n_clusters
        Clusters of k-means on the principal components of these spots.
    per_cluster
        Genes taken for each cluster; one taken already makes room for the next.
    seed
        Of k-means.
    scores
        ``components(Y_train).scores`` where they are there already.

    Returns
    -------
    Panel
        ``markers``, cluster by cluster.

    Raises
    ------
    InputError
        Fewer spots than twice the number of clusters.

    Notes
    -----
    Genes are ranked by Welch's t of a cluster against all other spots; the clusters come from the same values, so t
    is an order here and no test.
    """
    n = Y_train.shape[0]
    if n < 2 * n_clusters:
        raise InputError.one(
            "marker panel",
            f"{n} training spots for {n_clusters} clusters",
            f"at least {2 * n_clusters} spots",
            "Ask for fewer clusters.",
        )
    scores = components(Y_train, _COMPONENTS).scores if scores is None else scores
    labels = _clusters(scores[:, :_COMPONENTS], n_clusters, seed)
    chosen: list[int] = []
    for t in _welch(Y_train, labels, n_clusters):
        ranked = [int(gene) for gene in np.argsort(-t, kind="stable") if gene not in chosen and t[gene] > 0]
        chosen += ranked[:per_cluster]
    return Panel("markers", np.array(chosen, dtype=np.intp))


def _clusters(scores: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return KMeans(n_clusters, n_init=5, random_state=seed).fit_predict(scores)


def _welch(Y: sp.csr_matrix, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Welch's t of each cluster against the rest, clusters x genes; -inf where a side has fewer than two spots."""
    n = len(labels)
    one_hot = sp.csr_matrix((np.ones(n), (labels, np.arange(n))), shape=(n_clusters, n))
    sums, squares = (np.asarray((one_hot @ values).todense()) for values in (Y, Y.multiply(Y)))
    inside = np.bincount(labels, minlength=n_clusters)[:, None].astype(float)
    outside = n - inside

    def moments(size: np.ndarray, total: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = total / np.maximum(size, 1)
        spread = np.maximum(square - size * mean**2, 0) / np.maximum(size - 1, 1)
        return mean, spread / np.maximum(size, 1)

    mean_in, error_in = moments(inside, sums, squares)
    mean_out, error_out = moments(outside, sums.sum(axis=0) - sums, squares.sum(axis=0) - squares)
    error = np.sqrt(error_in + error_out)
    t = np.divide(mean_in - mean_out, error, out=np.zeros_like(error), where=error > 0)
    return np.where((inside > 1) & (outside > 1), t, -np.inf)


def all_genes(counts_train: sp.csr_matrix, min_share: float = 0.05) -> Panel:
    """Choose the genes detected in a share of the training spots.

    Parameters
    ----------
    counts_train
        training spots x genes, counts or log-normalised.
    min_share
        Least share of spots, 0 to 1.

    Returns
    -------
    Panel
        ``all``, in the order of the columns.

    Raises
    ------
    InputError
        No gene is detected that often.
    """
    detected = np.bincount(counts_train.indices[counts_train.data > 0], minlength=counts_train.shape[1])
    genes = np.flatnonzero(detected >= max(min_share * counts_train.shape[0], 1))
    if len(genes) == 0:
        raise InputError.one(
            "gene panel",
            f"no gene in {min_share:.0%} of {counts_train.shape[0]} training spots (the most common: "
            f"{detected.max(initial=0)} spots)",
            "at least one gene",
            "Lower the share of spots.",
        )
    return Panel("all", genes)
