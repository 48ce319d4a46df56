"""Normalisation, variable genes and principal components, without holding the normalised matrix of all genes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import InputError, NotComputed
from histoweft.expression.qc import select
from histoweft.io import CountsFile, CsrWriter, add_elements, atomic
from histoweft.linalg import Components, pca
from histoweft.normalise import dispersion_table, normalise, row_sums, size_factors

COVARIANCE_GENES = 5_000
"""Up to so many genes (or cells) their products (at most 200 MB) are formed and decomposed exactly."""

FLAVOURS = ("seurat", "seurat_v3", "pearson")


@dataclass(frozen=True)
class FeatureOptions:
    """How features are made. The names are those of the options under `expression.features`.

    Parameters
    ----------
    target_sum
        Every cell's counts are scaled to this total before log(1 + x).
    flavour
        How variable genes are ranked: see `rank_genes`.
    n_top
        Variable genes kept; all where there are fewer.
    n_components
        Principal components; fewer where there are not enough genes or cells.
    scale
        Give each gene unit variance before the principal components.
    """

    target_sum: float = 10_000
    flavour: str = "seurat"
    n_top: int = 2_000
    n_components: int = 30
    scale: bool = False


@dataclass
class FeatureResult:
    """What `extract_features` found.

    Attributes
    ----------
    genes
        Index: all genes. means, variances (of normalised values or counts, as the flavour has it), the flavour's own
        columns, rank (1 = most variable), variable.
    variance, variance_ratio
        Of each principal component, and its share of the total.
    """

    genes: pd.DataFrame
    variance: np.ndarray
    variance_ratio: np.ndarray


# ---------------------------------------------------------------------------------------------- variable genes


@dataclass
class _Moments:
    """Sums over cells, for each gene, of counts or of normalised values."""

    n: int
    totals: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    def add(self, chunk: sp.csr_matrix, values: np.ndarray) -> None:
        self.sums += _column_sums(chunk, values)
        self.squares += _column_sums(chunk, np.square(values, out=values))

    @property
    def mean(self) -> np.ndarray:
        return self.sums / max(self.n, 1)

    @property
    def variance(self) -> np.ndarray:
        spread = self.squares - self.n * self.mean**2
        return np.maximum(spread, 0) / max(self.n - 1, 1)


def _column_sums(chunk: sp.csr_matrix, values: np.ndarray) -> np.ndarray:
    """Sum `values`, one for each stored element of the chunk, over each column; float64."""
    weighted = sp.csr_matrix(chunk.shape, dtype=np.float64)
    weighted.data, weighted.indices, weighted.indptr = values, chunk.indices, chunk.indptr
    return weighted.T @ np.ones(chunk.shape[0])


def _moments(counts: CountsFile, target_sum: float | None) -> _Moments:
    """Gather totals by cell, and sums and squares by gene, in one pass; of raw counts when `target_sum` is None."""
    found = _Moments(counts.n_obs, np.zeros(counts.n_obs), np.zeros(counts.n_vars), np.zeros(counts.n_vars))
    for where, chunk in counts.chunks():
        found.totals[where] = row_sums(chunk)
        values = chunk.data.astype(np.float64)
        if target_sum is not None:
            values *= np.repeat(size_factors(found.totals[where], target_sum), np.diff(chunk.indptr))
        found.add(chunk, values)
    return found


def _clipped_variance(counts: CountsFile, moments: _Moments) -> pd.DataFrame:
    """Variance of counts standardised by the trend of variance over mean, clipped at sqrt(n) (Seurat v3).

    Stuart et al. 2019, Cell 177:1888; the trend is a loess of degree 2 and span 0.3 on log10 scales.
    """
    from skmisc.loess import loess

    mean, variance, n = moments.mean, moments.variance, counts.n_obs
    expected = np.zeros(len(mean))
    spread = variance > 0
    if spread.any():
        trend = loess(np.log10(mean[spread]), np.log10(variance[spread]), span=0.3, degree=2)
        trend.fit()
        expected[spread] = trend.outputs.fitted_values
    deviation = np.sqrt(10**expected)
    ceiling = deviation * np.sqrt(n) + mean
    sums, squares = np.zeros(counts.n_vars), np.zeros(counts.n_vars)
    for _, chunk in counts.chunks():
        values = np.minimum(chunk.data, ceiling[chunk.indices])
        sums += _column_sums(chunk, values)
        squares += _column_sums(chunk, np.square(values, out=values))
    score = (n * mean**2 + squares - 2 * sums * mean) / ((n - 1) * deviation**2)
    return pd.DataFrame({"means": mean, "variances": variance, "variances_norm": score})


def _residual_variance(counts: CountsFile, moments: _Moments, theta: float = 100.0) -> pd.DataFrame:
    """Variance of clipped Pearson residuals under a negative binomial without other structure.

    Lause, Berens and Kobak 2021, Genome Biology 22:258. The zeros of a chunk are not sparse here, so a chunk of cells
    is made dense for a block of genes at a time.
    """
    totals, share = moments.totals, moments.sums / max(moments.sums.sum(), 1)
    clip = np.sqrt(counts.n_obs)
    sums, squares = np.zeros(counts.n_vars), np.zeros(counts.n_vars)
    for where, chunk in counts.chunks():
        for start in range(0, chunk.shape[0], 256):
            part = chunk[start : start + 256]
            mean = np.outer(totals[where][start : start + 256], share)
            with np.errstate(invalid="ignore"):
                residuals = (part.toarray() - mean) / np.sqrt(mean + mean**2 / theta)
            residuals = np.clip(np.nan_to_num(residuals), -clip, clip)
            sums += residuals.sum(axis=0)
            squares += np.square(residuals, out=residuals).sum(axis=0)
    n = counts.n_obs
    score = squares / n - (sums / n) ** 2
    return pd.DataFrame({"means": moments.mean, "variances": moments.variance, "residual_variances": score})


def rank_genes(counts: CountsFile, options: FeatureOptions) -> tuple[pd.DataFrame, np.ndarray]:
    """Rank genes by how variable they are.

    Parameters
    ----------
    counts
        Cells x genes, raw counts.
    options
        `flavour` is ``seurat`` (dispersion within bins of the mean, of normalised values: see `dispersion_table`),
        ``seurat_v3`` (standardised variance of counts, Stuart et al. 2019) or ``pearson`` (variance of
        clipped residuals, Lause et al. 2021).

    Returns
    -------
    table
        Index: genes; the flavour's columns, rank (1 = most variable, ties in the order of the file) and variable (the
        first `n_top`).
    totals
        Counts of each cell, (cells,).

    Raises
    ------
    InputError
        An unknown flavour, fewer than two cells, or no gene.
    """
    if options.flavour not in FLAVOURS:
        where = "config: expression.features.flavour"
        raise InputError.one(where, repr(options.flavour), f"one of {', '.join(FLAVOURS)}")
    if counts.n_obs < 2 or counts.n_vars < 1:
        found = f"{counts.n_obs} barcodes and {counts.n_vars} genes left after QC"
        raise NotComputed(f"{found}; features need two barcodes or more", "expression.qc")
    moments = _moments(counts, options.target_sum if options.flavour == "seurat" else None)
    if options.flavour == "seurat":
        table, score = dispersion_table(moments.mean, moments.variance), "dispersions_norm"
    elif options.flavour == "seurat_v3":
        table, score = _clipped_variance(counts, moments), "variances_norm"
    else:
        table, score = _residual_variance(counts, moments), "residual_variances"
    order = np.argsort(-np.nan_to_num(table[score].to_numpy(), nan=-np.inf), kind="stable")
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(1, len(order) + 1)
    table["rank"], table["variable"] = rank, rank <= options.n_top
    return table.set_index(counts.var_names), moments.totals


# ------------------------------------------------------------------------------------------ principal components


def _axes_of_many_genes(features: CountsFile, moments: _Moments, spread: np.ndarray, n: int) -> Components:
    """Decompose the centred matrix itself by Lanczos iteration, for more genes than a covariance matrix suits."""
    from scipy.sparse.linalg import LinearOperator

    from histoweft.convergence import singular_vectors

    matrix, shape = features.matrix(), features.shape
    centre = moments.mean / spread

    def times(vector: np.ndarray) -> np.ndarray:
        vector = vector.ravel()
        return matrix @ (vector / spread) - centre @ vector

    def back(vector: np.ndarray) -> np.ndarray:
        vector = vector.ravel()
        return (matrix.T @ vector) / spread - centre * vector.sum()

    operator = LinearOperator(shape, matvec=times, rmatvec=back, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(min(shape))
    _, values, axes = singular_vectors(
        operator, n, start, lambda: matrix.toarray() / spread - centre, "principal components"
    )
    variance = values**2 / (shape[0] - 1)
    return Components(_with_fixed_signs(axes.T), centre, variance, variance / (moments.variance / spread**2).sum())


def _axes_of_few_cells(features: CountsFile, moments: _Moments, spread: np.ndarray, n: int) -> Components:
    """Decompose the products of cells instead of those of genes: the same axes, sooner where cells are fewer."""
    from scipy.linalg import eigh

    centre = moments.mean / spread
    dense = features.matrix().toarray() / spread - centre
    m = len(dense)
    squares, cells = eigh(dense @ dense.T, subset_by_index=(m - n, m - 1))
    squares, cells = np.maximum(squares[::-1], 0), cells[:, ::-1]
    axes = dense.T @ cells
    axes /= np.maximum(np.linalg.norm(axes, axis=0), np.finfo(float).tiny)
    total = max((moments.variance / spread**2).sum(), np.finfo(float).tiny)
    return Components(_with_fixed_signs(axes), centre, squares / (m - 1), squares / (m - 1) / total)


def _with_fixed_signs(axes: np.ndarray) -> np.ndarray:
    """Turn each axis so that its entry of largest size is positive.

    The sign of a component is arbitrary: without a convention it changes with the machine's algebra library.
    """
    return axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)


def _components(features: CountsFile, moments: _Moments, options: FeatureOptions) -> tuple[Components, np.ndarray]:
    """Find the principal components of the written features, and each cell's coordinates along them."""
    n = min(options.n_components, features.n_vars, features.n_obs - 1)
    spread = np.sqrt(moments.variance) if options.scale else np.ones(features.n_vars)
    spread[spread == 0] = 1

    def scaled() -> Iterator[sp.csr_matrix]:
        for _, chunk in features.chunks():
            if options.scale:
                chunk.data /= spread[chunk.indices].astype(np.float32)
            yield chunk

    if features.n_obs < features.n_vars and features.n_obs <= COVARIANCE_GENES:
        found = _axes_of_few_cells(features, moments, spread, n)
    elif features.n_vars <= COVARIANCE_GENES:
        found = pca(scaled(), features.n_vars, n)
    else:
        found = _axes_of_many_genes(features, moments, spread, n)
    return found, np.concatenate([found.project(chunk) for chunk in scaled()])


def extract_features(
    in_path: str | os.PathLike, out_path: str | os.PathLike, options: FeatureOptions | None = None
) -> FeatureResult:
    """Write the log-normalised variable genes of a file of counts and their principal components.

    Three passes: one ranks the genes, one gathers the chosen columns, one (over those columns only) projects. Memory
    grows with the square of the chosen genes and with cells x components, not with the counts.

    Parameters
    ----------
    in_path
        h5ad, cells x genes, filtered raw counts.
    out_path
        h5ad: X (cells x variable genes, float32), obs (no columns), var (the file's columns and those of
        `rank_genes`), obsm X_pca, varm PCs, uns pca (variance, variance_ratio) and log1p; written atomically.
    options
        How.

    Returns
    -------
    Ranking of all genes, and variance explained.

    Raises
    ------
    InputError
        The file cannot be read or an option cannot be used.
    """
    options = options or FeatureOptions()
    with atomic(out_path) as partial:
        with CountsFile(in_path) as counts:
            table, totals = rank_genes(counts, options)
            chosen = table["variable"].to_numpy()
            var = pd.concat([counts.var(), table.drop(columns="variable")], axis=1)[chosen]
            moments = _Moments(counts.n_obs, totals, np.zeros(len(var)), np.zeros(len(var)))
            with CsrWriter(partial, len(var), np.float32) as writer:
                for where, chunk in counts.chunks():
                    part = select(chunk, np.ones(chunk.shape[0], dtype=bool), chosen)
                    part = normalise(part, options.target_sum, totals[where])
                    writer.append(part)
                    moments.add(part, part.data.astype(np.float64))
                writer.finish(pd.DataFrame(index=counts.obs_names), var, uns={"log1p": {}})
        with CountsFile(partial) as features:
            found, scores = _components(features, moments, options)
        shares = {"variance": found.variance, "variance_ratio": found.variance_ratio}
        add_elements(partial, {"obsm/X_pca": scores, "varm/PCs": found.axes, "uns/pca": shares})
    return FeatureResult(table, found.variance, found.variance_ratio)
