"""Spatially variable genes: Moran's I, Geary's C and a covariance test, all in closed form."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.io import CountsFile
from histoweft.significance import SMALLEST, adjust, cauchy, upper_tail
from histoweft.space.graph import row_normalised
from histoweft.space.values import gene_blocks, totals_and_found

DENSE_VALUES = 64_000_000
"""Values made dense at a time, at most: 256 MB, and as much for the means over their neighbours."""

_WIDTH = 128
_ROWS = 256

COLUMNS = (
    "gene", "rank", "moran", "geary", "z", "skewness", "p", "q", "p_normality", "sparkx_p", "sparkx_q", "mean", "share",
)  # fmt: skip
_QUANTILES = (0.2, 0.4, 0.6, 0.8, 1.0)


# ------------------------------------------------------------------------------------------ moments of Moran's I


@dataclass(frozen=True)
class Patterns:
    """Sums of products of weights over sets of edges, each edge counted once.

    Attributes
    ----------
    squares, cubes
        Sum of w^2 and of w^3.
    meeting
        Over unordered pairs of edges with a point in common.
    apart
        Over unordered pairs without.
    twice_meeting, twice_apart
        Sum of v^2 w over ordered pairs of edges with and without a point in common.
    triangles, stars, paths, bent_and_single, single
        Over three edges: a triangle, three from one point, a path, a path of two and one apart, all apart.
    """

    squares: float
    cubes: float
    meeting: float
    apart: float
    twice_meeting: float
    twice_apart: float
    triangles: float
    stars: float
    paths: float
    bent_and_single: float
    single: float


@dataclass(frozen=True)
class Weights:
    """A symmetric matrix of weights without diagonal, and the sums that the moments of Moran's I need.

    Attributes
    ----------
    matrix
        (n, n) float32: the row-normalised graph W made symmetric, (W + W') / 2, which leaves x'Wx as it is.
    n
        Points.
    total
        Sum of all weights; S0 of Cliff and Ord.
    patterns
        Sums over one, two and three edges of the products of their weights, by how the edges meet.
    """

    matrix: sp.csr_matrix
    n: int
    total: float
    patterns: Patterns


def count_patterns(weights: sp.csr_matrix) -> Patterns:
    """Sum products of weights over sets of up to three edges.

    Parameters
    ----------
    weights
        Symmetric, no diagonal.
    """
    w = sp.csr_matrix(weights, dtype=np.float64)
    squared, cubed = w.copy(), w.copy()
    squared.data **= 2
    cubed.data **= 3
    r, q, c = (np.asarray(m.sum(axis=1)).ravel() for m in (w, squared, cubed))
    one, two, three = r.sum() / 2, q.sum() / 2, c.sum() / 2
    meeting = float((r**2 - q).sum() / 2)
    twice_meeting = float((q * r - c).sum())
    triangles = float(w.multiply(w @ w).sum() / 6)
    stars = float((r**3 - 3 * r * q + 2 * c).sum() / 6)
    # From the middle edge outwards: w (r - w)(r' - w), less the ways that end where they began.
    rows = np.repeat(np.arange(w.shape[0]), np.diff(w.indptr))
    paths = float((w.data * (r[rows] - w.data) * (r[w.indices] - w.data)).sum() / 2 - 3 * triangles)
    bent_and_single = meeting * one - twice_meeting - 3 * triangles - 3 * stars - 2 * paths
    every = (one**3 - 3 * one * two + 2 * three) / 6
    return Patterns(
        squares=two,
        cubes=three,
        meeting=meeting,
        apart=(one**2 - two) / 2 - meeting,
        twice_meeting=twice_meeting,
        twice_apart=two * one - three - twice_meeting,
        triangles=triangles,
        stars=stars,
        paths=paths,
        bent_and_single=bent_and_single,
        single=every - triangles - stars - paths - bent_and_single,
    )


def weights_of(graph: sp.csr_matrix) -> Weights:
    """Prepare a graph for Moran's I; points without neighbours take part with no weight."""
    w = row_normalised(graph)
    w = sp.csr_matrix((w + w.T) / 2)
    w.sort_indices()
    return Weights(w.astype(np.float32), w.shape[0], float(w.sum()), count_patterns(w))


def mean_product(exponents: tuple[int, ...], sums: dict[int, np.ndarray], n: int) -> np.ndarray:
    """Return the mean of z_i^a z_j^b ... over all choices of different points i, j, ...

    Parameters
    ----------
    exponents
        a, b, ...
    sums
        Sum of z^k over all points, by k.
    n
        Points.
    """
    total = _over_different(exponents, sums)
    for k in range(len(exponents)):
        total = total / (n - k)
    return total


def _over_different(exponents: tuple[int, ...], sums: dict[int, np.ndarray]) -> np.ndarray:
    """Sum z_i^a z_j^b ... over different points: the first is free, less the cases where it meets another."""
    first, *rest = exponents
    if not rest:
        return sums[first]
    total = sums[first] * _over_different(tuple(rest), sums)
    for k in range(len(rest)):
        total = total - _over_different((*rest[:k], rest[k] + first, *rest[k + 1 :]), sums)
    return total


def permutation_moments(weights: Weights, sums: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, standard deviation and skewness of Moran's I when values are dealt out at random.

    Parameters
    ----------
    weights
        The graph.
    sums
        Power sums 1 to 6 of the centred values, by exponent, each (genes,).

    Notes
    -----
    The "randomisation" moments of Cliff and Ord 1981 (Spatial Processes, section 2.3), of which they give the first
    two; the third comes from the same counting, over sets of three edges. Exact for any values.
    """
    p, n = weights.patterns, weights.n

    def mean(*exponents: int) -> np.ndarray:
        return mean_product(exponents, sums, n)

    one = weights.total / 2 * mean(1, 1)
    two = p.squares * mean(2, 2) + 2 * p.meeting * mean(2, 1, 1) + 2 * p.apart * mean(1, 1, 1, 1)
    three = (
        p.cubes * mean(3, 3)
        + 3 * p.twice_meeting * mean(3, 2, 1)
        + 3 * p.twice_apart * mean(2, 2, 1, 1)
        + 6 * p.triangles * mean(2, 2, 2)
        + 6 * p.stars * mean(3, 1, 1, 1)
        + 6 * p.paths * mean(2, 2, 1, 1)
        + 6 * p.bent_and_single * mean(2, 1, 1, 1, 1)
        + 6 * p.single * mean(1, 1, 1, 1, 1, 1)
    )
    variance = np.maximum(two - one**2, 0)
    scale = 2 * n / (weights.total * sums[2])
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = (three - 3 * one * two + 2 * one**3) / variance**1.5
    return one * scale, np.sqrt(variance) * scale, skewness


def normal_variance(weights: Weights) -> float:
    """Return the variance of Moran's I when the values are normal (Cliff and Ord 1981, equation 1.37)."""
    n, s0 = weights.n, weights.total
    s1 = 4 * weights.patterns.squares
    rows = np.asarray(weights.matrix.sum(axis=1), dtype=np.float64).ravel()
    s2 = 4 * float((rows**2).sum())
    return (n**2 * s1 - n * s2 + 3 * s0**2) / (s0**2 * (n**2 - 1)) - 1 / (n - 1) ** 2


# ------------------------------------------------------------------------------------------------ all genes


def kernels(xy: np.ndarray) -> np.ndarray:
    """Return the transformed coordinates of SPARK-X: as they are, five Gaussian, five cosine.

    Returns
    -------
    (11, n, 2). Scales are the 20, 40, ..., 100 % quantiles of the distance from the centre along each axis.

    References
    ----------
    Zhu, Sun and Zhou 2021, Genome Biology 22:184.
    """
    centred = xy - xy.mean(axis=0)
    scales = np.maximum(np.quantile(np.abs(centred), _QUANTILES, axis=0), 1e-12)
    made = [centred]
    made += [np.exp(-(centred**2) / (2 * scale**2)) for scale in scales]
    made += [np.cos(2 * np.pi * centred / scale) for scale in scales]
    return np.stack(made)


@dataclass
class _Found:
    """What passes over the values give, for a block of genes; each (genes,)."""

    moran: np.ndarray
    geary: np.ndarray
    z: np.ndarray
    skewness: np.ndarray
    p_normality: np.ndarray
    sparkx_p: np.ndarray
    mean: np.ndarray


class SectionTests:
    """Everything about a section that does not depend on the gene.

    Parameters
    ----------
    graph
        Spatial neighbours, symmetric, no diagonal.
    xy
        Positions, (n, 2).
    covariate
        Regressed out of each gene, (n,); None for none. The residuals are then taken as exchangeable (Freedman and
        Lane 1983), which holds for many more points than covariates.
    """

    def __init__(self, graph: sp.csr_matrix, xy: np.ndarray, covariate: np.ndarray | None = None):
        self.weights = weights_of(graph)
        self._rows = np.asarray(self.weights.matrix.sum(axis=1), dtype=np.float64).ravel()
        n = self.weights.n
        columns = [np.ones(n)] if covariate is None else [np.ones(n), covariate]
        self._design = np.linalg.qr(np.column_stack(columns))[0]
        bases = [self._basis(kernel) for kernel in kernels(xy)]
        self._dimensions = [basis.shape[1] for basis in bases]
        self._bases = np.ascontiguousarray(np.column_stack(bases).T, dtype=np.float32)
        self._normal_variance = normal_variance(self.weights)

    def _basis(self, kernel: np.ndarray) -> np.ndarray:
        """Return an orthonormal basis of a kernel's columns, beyond what is regressed out anyway."""
        rest = kernel - self._design @ (self._design.T @ kernel)
        left, size, _ = np.linalg.svd(rest, full_matrices=False)
        return left[:, size > 1e-8 * max(float(np.abs(kernel).max()) * np.sqrt(len(kernel)), 1e-300)]

    def run(self, values: sp.csc_matrix) -> _Found:
        """Test a block of genes, (n, genes) sparse."""
        width = int(np.clip(DENSE_VALUES // self.weights.n, 1, _WIDTH))
        parts = [self._dense(values[:, at : at + width]) for at in range(0, values.shape[1], width)]
        return _Found(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(_Found)})

    def _dense(self, values: sp.csc_matrix) -> _Found:
        n, w = self.weights.n, self.weights
        mean = np.asarray(values.sum(axis=0, dtype=np.float64)).ravel() / n
        x = self._centred(values, mean)
        sums, across, diagonal = self._sums(x, w.matrix @ x)
        constant = sums[2] <= n * (1e-6 * np.maximum(np.abs(mean), 1e-6)) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            moran = n / w.total * across / sums[2]
            # Sum of w (x_i - x_j)^2 = 2 (sum of w_i. x_i^2 - x'Wx); Geary 1954, Cliff and Ord 1981, equation 1.33.
            geary = (n - 1) / w.total * (diagonal - across) / sums[2]
            expected, deviation, skewness = permutation_moments(w, sums)
            z = (moran - expected) / deviation
        normal_z = (moran + 1 / (n - 1)) / np.sqrt(self._normal_variance)
        found = _Found(moran, geary, z, skewness, upper_tail(normal_z), self._covariance_test(x, sums[2]), mean)
        for name in ("moran", "geary", "z", "skewness", "p_normality", "sparkx_p"):
            getattr(found, name)[constant] = np.nan
        return found

    def _centred(self, values: sp.csc_matrix, mean: np.ndarray) -> np.ndarray:
        """Return the values without mean and covariate, (n, genes) float32."""
        x = values.toarray(order="C").astype(np.float32, copy=False)
        if self._design.shape[1] == 1:
            x -= mean.astype(np.float32)
        else:
            x -= self._design.astype(np.float32) @ (values.T @ self._design).T.astype(np.float32)
        return x

    def _sums(self, x: np.ndarray, around: np.ndarray) -> tuple[dict[int, np.ndarray], np.ndarray, np.ndarray]:
        """Return power sums 1 to 6, x'Wx, and the sum of squares weighted by the rows' weights.

        A few rows at a time, which stay in the processor's cache. What I and C are made of is summed in double
        precision, the higher powers in single precision within those rows.
        """
        found = np.zeros((7, x.shape[1]))
        for at in range(0, len(x), _ROWS):
            part = x[at : at + _ROWS]
            square = part * part
            cube = square * part
            found[0] += (part * around[at : at + _ROWS]).sum(axis=0, dtype=np.float64)
            found[1] += self._rows[at : at + _ROWS] @ square.astype(np.float64)
            found[2] += square.sum(axis=0, dtype=np.float64)
            found[3] += cube.sum(axis=0)
            found[4] += np.einsum("ij,ij->j", square, square)
            found[5] += np.einsum("ij,ij->j", square, cube)
            found[6] += np.einsum("ij,ij->j", cube, cube)
        return {1: np.zeros(x.shape[1])} | dict(enumerate(found[2:], 2)), found[0], found[1]

    def _covariance_test(self, x: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Return the combined p-value of the covariance test with all kernels.

        SPARK-X compares y y' with K (K'K)^-1 K'. That is a projection, whose eigenvalues are all one: the mixture of
        chi-squares of its null distribution is a single chi-square with as many degrees of freedom as the kernel has
        dimensions, and needs no numerical inversion.
        """
        from scipy.special import chdtrc

        explained = (self._bases @ x).astype(np.float64) ** 2
        p, at = np.ones((len(self._dimensions), x.shape[1])), 0
        for row, size in zip(p, self._dimensions, strict=True):
            if size:
                with np.errstate(divide="ignore", invalid="ignore"):
                    row[:] = chdtrc(size, len(x) * explained[at : at + size].sum(axis=0) / squares)
            at += size
        return cauchy(np.maximum(p, SMALLEST))


def variable_genes(
    counts: CountsFile,
    graph: sp.csr_matrix,
    xy: np.ndarray,
    target_sum: float = 10_000,
    min_share: float = 0.01,
    regress_total: bool = False,
) -> pd.DataFrame:
    """Test every gene of a section for spatial structure.

    Parameters
    ----------
    counts
        Filtered counts.
    graph
        Spatial neighbours.
    xy
        Positions, (n, 2).
    target_sum
        Total that each barcode is scaled to before log1p.
    min_share
        Genes found in a smaller share of the barcodes are not tested.
    regress_total
        Whether the logarithm of each barcode's total is regressed out of every gene.

    Returns
    -------
    `COLUMNS`, by rank: gene; rank (1 has the largest Moran's I); moran (row-normalised weights), geary; z, skewness, p
    (more alike than chance, Pearson type III tail of the permutation distribution with its exact first three
    moments), q (Benjamini-Hochberg); p_normality (normal values); sparkx_p, sparkx_q (covariance test); mean of the
    log-normalised values; share of the barcodes in which the gene was found. Not tested: NaN.
    """
    totals, found = totals_and_found(counts)
    share = found / max(counts.n_obs, 1)
    tests = SectionTests(graph, xy, np.log(np.maximum(totals, 1)) if regress_total else None)
    parts = []
    for genes, values in gene_blocks(counts, totals, found, target_sum):
        part = pd.DataFrame(vars(tests.run(values)))
        part.insert(0, "gene", counts.var_names[genes].astype(str))
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    table["share"] = share
    untested = share < min_share
    table.loc[untested, ["moran", "geary", "z", "skewness", "p_normality", "sparkx_p"]] = np.nan
    table["p"] = upper_tail(table["z"].to_numpy(), table["skewness"].fillna(0).to_numpy())
    table["q"], table["sparkx_q"] = adjust(table["p"].to_numpy()), adjust(table["sparkx_p"].to_numpy())
    table = table.sort_values("moran", ascending=False, kind="stable", na_position="last", ignore_index=True)
    table["rank"] = np.arange(1, len(table) + 1)
    return table[list(COLUMNS)]
