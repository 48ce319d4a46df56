"""Whether ligand and receptor lie side by side more than the make-up of the tissue explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.places import spacing
from histoweft.significance import adjust, upper_tail
from histoweft.space.graph import row_normalised
from histoweft.space.ligands import Pairs

COLUMNS = (
    "ligand_complex", "receptor_complex", "score", "raw_score", "z", "p", "q", "z_stationary", "null_sd", "inflation",
    "ligand_share", "receptor_share",
)  # fmt: skip
CONTROLS = 100
"""Genes without a part in any pair that the null distribution is measured on."""

REACH = 16
"""Distance up to which the genes' own autocorrelation enters the variance, in distances between neighbours."""

_MIN_FOUND = 30
_MIN_SHARE = 0.01
_ENOUGH_UNRELATED = 20
_SEVERAL_CELLS_UM = 30.0
_BLOCK_VALUES = 16_000_000


def holds_several_cells(spot_diameter_um: float) -> bool:
    """Return whether a spot is so wide that ligand and receptor may meet inside it."""
    return bool(np.isfinite(spot_diameter_um) and spot_diameter_um >= _SEVERAL_CELLS_UM)


def surroundings(graph: sp.csr_matrix, own: bool) -> sp.csr_matrix:
    """Return the matrix that takes the mean over the neighbours of a point, and of the point itself if `own`."""
    if own:
        graph = graph + sp.identity(graph.shape[0], dtype=np.float32, format="csr")
    return row_normalised(sp.csr_matrix(graph)).astype(np.float32)


def composition(labels: pd.Categorical, components: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of what stands for the make-up of the tissue.

    Parameters
    ----------
    labels
        Group of each point; without a label is a group too.
    components
        Principal components of the expression, (n, k); the first n / 20 are used at most.
    totals
        Counts of each point.

    Returns
    -------
    (n, columns): a constant, the groups, the components and the logarithm of the totals, made orthonormal.
    """
    codes = np.asarray(labels.codes)
    n = len(codes)
    groups = (codes[:, None] == np.unique(codes)[1:]).astype(float)
    depth = np.log(np.maximum(totals, 1))[:, None]
    columns = np.column_stack([groups, components[:, : max(n // 20, 1)], depth]).astype(float)
    columns -= columns.mean(axis=0)
    size = np.linalg.norm(columns, axis=0)
    columns = np.column_stack([np.ones(n), columns[:, size > 0] / size[size > 0]])
    left, spread, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, spread > 1e-6 * spread[0]]


# ----------------------------------------------------------------------------------- autocorrelation on a raster


class Raster:
    """Sums of products over all pairs of points, by the vector between them.

    Parameters
    ----------
    xy
        Positions, (n, 2).
    side
        Side of a raster cell; a vector is known to within one cell.
    reach
        Longest vector, in cells.

    Attributes
    ----------
    pairs
        (lags,) ordered pairs of different points for each vector; vectors without pairs are left out.
    """

    def __init__(self, xy: np.ndarray, side: float, reach: int = REACH):
        from scipy.fft import next_fast_len

        cell = np.floor((xy - xy.min(axis=0)) / side).astype(int)
        size = cell.max(axis=0) + 1
        # Padded by the reach, so that no point meets another around the edge.
        self._shape = [next_fast_len(int(max(s + reach, 2 * reach + 1)), real=True) for s in size]
        self._cell = cell[:, 0] * self._shape[1] + cell[:, 1]
        self._lags = np.arange(-reach, reach + 1)
        near = self._lags[:, None] ** 2 + self._lags**2 <= reach**2
        pairs = np.round(self._correlate(np.ones(len(xy))))
        pairs[reach, reach] -= len(xy)
        self._kept = near & (pairs > 0.5)
        self._centre = (reach, reach)
        self.pairs = pairs[self._kept]

    def _correlate(self, values: np.ndarray) -> np.ndarray:
        from scipy.fft import irfft2, rfft2

        raster = np.bincount(self._cell, weights=values, minlength=int(np.prod(self._shape)))
        spectrum = rfft2(raster.reshape(self._shape).astype(np.float32))
        products = irfft2(spectrum.real**2 + spectrum.imag**2, s=self._shape)
        return products[np.ix_(self._lags, self._lags)].astype(np.float64)

    def autocovariance(self, values: np.ndarray) -> np.ndarray:
        """Return sums of products of centred values over pairs of different points, (lags,) for each column.

        Parameters
        ----------
        values
            (n, columns).
        """
        found = np.empty((values.shape[1], len(self.pairs)))
        for row, column in zip(found, values.T, strict=True):
            products = self._correlate(column)
            products[self._centre] -= float(column.astype(np.float64) @ column)
            row[:] = products[self._kept]
        return found


# -------------------------------------------------------------------------------------------- the score and its null


def entity_values(values: sp.csc_matrix, subunits: tuple[int, ...]) -> sp.csc_matrix:
    """Return the smallest value of the subunits in each point, (n, 1)."""
    smallest = values[:, [subunits[0]]]
    for row in subunits[1:]:
        smallest = smallest.minimum(values[:, [row]])
    return smallest.tocsc()


def _residuals(columns: sp.csc_matrix, basis: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Take the basis out of some columns of a sparse matrix; (n, columns) float32."""
    block = columns[:, own]
    fitted = basis @ (block.T @ basis).T
    return (block.toarray() - fitted).astype(np.float32)


def _blocks(n: int, count: int) -> list[np.ndarray]:
    width = max(1, _BLOCK_VALUES // max(n, 1))
    return [np.arange(at, min(at + width, count)) for at in range(0, count, width)]


def fields(
    entities: sp.csc_matrix, ligands: np.ndarray, receptors: np.ndarray, basis: np.ndarray, around: sp.csr_matrix
) -> tuple[np.ndarray, np.ndarray]:
    """Return residuals of ligands and the mean of those of receptors over the surroundings.

    Parameters
    ----------
    entities
        (n, names and controls) values.
    ligands, receptors
        Columns of `entities`.
    basis
        From `composition`.
    around
        From `surroundings`.

    Returns
    -------
    x
        (n, ligands) float32.
    u
        (n, receptors) float32, centred.
    """
    n = entities.shape[0]
    x = np.empty((n, len(ligands)), dtype=np.float32)
    u = np.empty((n, len(receptors)), dtype=np.float32)
    for part in _blocks(n, len(ligands)):
        x[:, part] = _residuals(entities, basis, ligands[part])
    for part in _blocks(n, len(receptors)):
        mean = around @ _residuals(entities, basis, receptors[part])
        u[:, part] = mean - mean.mean(axis=0)
    return x, u


@dataclass
class Products:
    """Cross products of every ligand with every receptor; each ligands x receptors.

    Attributes
    ----------
    score
        Correlation of the ligand with the receptor around it.
    z
        The cross product over its standard deviation for two independent stationary fields.
    inflation
        How many times larger the autocorrelation of both makes the variance.
    skewness
        Of the cross product under independence, which counts where both genes are rare.
    """

    score: np.ndarray
    z: np.ndarray
    inflation: np.ndarray
    skewness: np.ndarray


def products(x: np.ndarray, u: np.ndarray, raster: Raster) -> Products:
    """Correlate fields and say how much chance would do.

    Parameters
    ----------
    x, u
        (n, ligands) and (n, receptors), centred.
    raster
        Of the same points.

    Notes
    -----
    For independent fields x and u, Var(sum x_i u_i) = sum_ij Cov(x_i, x_j) Cov(u_i, u_j) (Clifford, Richardson and
    Hemon 1989, Biometrics 45:123; Dutilleul 1993, Biometrics 49:305). The covariances are estimated for each vector
    between points, not for each distance, so anisotropic tissue (layers) needs no assumption. Its diagonal is taken
    as sum x_i^2 u_i^2, which holds when both vary most in the same part of the tissue.
    """
    n = len(x)
    cross = (x.T @ u).astype(np.float64)
    own_x = np.einsum("ij,ij->j", x, x, dtype=np.float64)
    own_u = np.einsum("ij,ij->j", u, u, dtype=np.float64)
    diagonal = np.zeros_like(cross)
    for rows in np.array_split(np.arange(n), max(1, n * (x.shape[1] + u.shape[1]) // _BLOCK_VALUES + 1)):
        diagonal += (x[rows] ** 2).T @ (u[rows] ** 2)
    shared = (raster.autocovariance(x) / raster.pairs) @ raster.autocovariance(u).T
    with np.errstate(divide="ignore", invalid="ignore"):
        inflation = np.maximum(1 + n * shared / np.outer(own_x, own_u), 0.5)
        z = cross / np.sqrt(diagonal * inflation)
        # Third moments of independent factors multiply.
        skewness = np.outer(_skewness(x, own_x), _skewness(u, own_u)) / np.sqrt(n)
        return Products(cross / np.sqrt(np.outer(own_x, own_u)), z, inflation, np.nan_to_num(skewness))


def _skewness(values: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return the skewness of each centred column, given its sum of squares."""
    cubes = np.einsum("ij,ij,ij->j", values, values, values, dtype=np.float64)
    return cubes / len(values) / (squares / len(values)) ** 1.5


def null_spread(z: np.ndarray, unrelated: np.ndarray) -> np.ndarray:
    """Measure how widely z scatters for pairs that have nothing to do with one another.

    Parameters
    ----------
    z
        ligands x receptors.
    unrelated
        Which of them are not a pair and have no gene in common.

    Returns
    -------
    ligands x receptors; at least 1. The root mean square over unrelated pairs, raised or lowered by what is usual for
    this ligand and this receptor: real genes keep structure in common that no model of the composition takes out,
    and some have more of it than others. An empirical null (Efron 2004, JASA 99:96), with a factor for each gene.
    """
    squares = np.where(unrelated & np.isfinite(z), z, 0.0) ** 2
    known = unrelated & np.isfinite(z)
    if known.sum() < _ENOUGH_UNRELATED:
        return np.ones_like(z)
    overall = squares.sum() / known.sum()

    def usual(axis: int) -> np.ndarray:
        count = known.sum(axis=axis)
        mean = squares.sum(axis=axis) / np.maximum(count, 1)
        return np.where(count >= _ENOUGH_UNRELATED, mean, overall)

    return np.sqrt(np.maximum(np.outer(usual(1), usual(0)) / max(overall, 1e-12), 1))


def _unrelated(pairs: Pairs, ligands: np.ndarray, receptors: np.ndarray, control_genes: list[tuple]) -> np.ndarray:
    """Say which combinations are neither a pair nor share a gene; ids beyond the names are control genes."""
    genes = [*pairs.subunits, *control_genes]
    listed = set(zip(pairs.ligand.tolist(), pairs.receptor.tolist(), strict=True))
    sets = [set(rows) for rows in genes]
    free = np.ones((len(ligands), len(receptors)), dtype=bool)
    for i, a in enumerate(ligands.tolist()):
        for j, b in enumerate(receptors.tolist()):
            free[i, j] = (a, b) not in listed and (b, a) not in listed and sets[a].isdisjoint(sets[b])
    return free


@dataclass
class Colocation:
    """What `colocate` found.

    Attributes
    ----------
    table
        `COLUMNS`, by p.
    local
        (n, top pairs): what each point adds to the score; columns ``ligand^receptor``.
    """

    table: pd.DataFrame
    local: pd.DataFrame


def colocate(
    values: sp.csc_matrix,
    pairs: Pairs,
    controls: sp.csc_matrix,
    basis: np.ndarray,
    graph: sp.csr_matrix,
    xy: np.ndarray,
    own: bool,
    barcodes: pd.Index,
    top: int = 6,
) -> Colocation:
    """Score every pair by how far receptors lie around ligands beyond what the tissue's make-up explains.

    Parameters
    ----------
    values
        (n, genes of the pairs), log-normalised.
    pairs
        Ligands and receptors; a complex has the smallest value of its subunits in each point.
    controls
        (n, control genes): genes with no part in any pair.
    basis
        From `composition`.
    graph
        Spatial neighbours.
    xy
        Positions, (n, 2).
    own
        Whether ligand and receptor may meet in the same point (`holds_several_cells`).
    barcodes
        Index of the local scores.
    top
        Pairs whose local scores are kept.

    Returns
    -------
    Colocation. In the table: score, the correlation of the ligand with the mean receptor around it after the make-up
    is taken out; raw_score, the same before; z and p (one-sided) against the null distribution, and q (Benjamini-
    Hochberg); z_stationary, z before division by null_sd (`null_spread`); inflation of the variance by the genes' own
    autocorrelation; shares of the points with a value. Pairs of a gene with itself, and with a name found in fewer
    than 30 points or 1 % of them, are not tested and left out.

    Notes
    -----
    The statistic is the bivariate Moran's R of SpatialDM (Li et al. 2023, Nature Communications 14:3995) on residuals.
    Its permutation null calls any two spatially structured genes related; here the null keeps the structure of each.
    """
    columns = [entity_values(values, rows) for rows in pairs.subunits]
    entities = sp.hstack([*columns, controls], format="csc")
    share = np.diff(entities.indptr) / len(xy)
    enough = share >= max(_MIN_SHARE, _MIN_FOUND / len(xy))
    tested = _testable(pairs, enough)
    if not len(tested):
        return Colocation(
            pd.DataFrame({name: pd.Series(dtype=float) for name in COLUMNS}), pd.DataFrame(index=barcodes)
        )
    a, b = pairs.ligand[tested], pairs.receptor[tested]
    extra = len(pairs.names) + np.flatnonzero(enough[len(pairs.names) :])
    ligands, receptors = np.concatenate([np.unique(a), extra]), np.concatenate([np.unique(b), extra])
    around = surroundings(graph, own)
    x, u = fields(entities, ligands, receptors, basis, around)
    found = products(x, u, Raster(xy, spacing(xy)))
    alone = [(-1 - k,) for k in range(controls.shape[1])]
    spread = null_spread(found.z, _unrelated(pairs, ligands, receptors, alone))
    at = np.searchsorted(ligands, a), np.searchsorted(receptors, b)
    z = found.z[at] / spread[at]
    names = np.array(pairs.names, dtype=object)
    table = pd.DataFrame({"ligand_complex": names[a], "receptor_complex": names[b], "score": found.score[at]})
    table = table.assign(raw_score=_raw(entities, a, b, around), z=z, p=upper_tail(z, found.skewness[at]))
    table = table.assign(q=adjust(table["p"].to_numpy()), z_stationary=found.z[at], null_sd=spread[at])
    table = table.assign(inflation=found.inflation[at], ligand_share=share[a], receptor_share=share[b])
    order = np.argsort(table["p"].to_numpy(), kind="stable")
    first = order[:top]
    titles = [f"{names[a[k]]}^{names[b[k]]}" for k in first]
    local = _local(x[:, at[0][first]], u[:, at[1][first]])
    shown = pd.DataFrame(local, index=barcodes, columns=titles)
    return Colocation(table.iloc[order].reset_index(drop=True)[list(COLUMNS)], shown)


def _testable(pairs: Pairs, enough: np.ndarray) -> np.ndarray:
    """Return the pairs whose two names are found often enough and have no gene in common."""
    kept = [
        k
        for k, (a, b) in enumerate(zip(pairs.ligand.tolist(), pairs.receptor.tolist(), strict=True))
        if enough[a] and enough[b] and set(pairs.subunits[a]).isdisjoint(pairs.subunits[b])
    ]
    return np.array(kept, dtype=int)


def _local(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return each point's part in the scores of some pairs, whose mean over the points is the score; float32."""
    return (x * u / np.sqrt((x**2).mean(axis=0) * (u**2).mean(axis=0))).astype(np.float32)


def _raw(entities: sp.csc_matrix, ligands: np.ndarray, receptors: np.ndarray, around: sp.csr_matrix) -> np.ndarray:
    """Correlate each ligand with the mean receptor around it, as they are."""
    n, found = entities.shape[0], np.empty(len(ligands))
    for part in _blocks(n, len(ligands)):
        x = entities[:, ligands[part]].toarray().astype(np.float32)
        u = around @ entities[:, receptors[part]].toarray().astype(np.float32)
        x -= x.mean(axis=0)
        u -= u.mean(axis=0)
        size = np.sqrt(np.einsum("ij,ij->j", x, x) * np.einsum("ij,ij->j", u, u))
        found[part] = np.einsum("ij,ij->j", x, u) / np.maximum(size, 1e-12)
    return found


def choose_controls(found: np.ndarray, n: int, used: np.ndarray, seed: int, count: int = CONTROLS) -> np.ndarray:
    """Draw genes with no part in any pair, rising.

    Parameters
    ----------
    found
        In how many of the `n` points each gene was found.
    used
        Genes of the pairs.
    """
    enough = found >= max(_MIN_SHARE * n, _MIN_FOUND)
    enough[used] = False
    free = np.flatnonzero(enough)
    return np.sort(np.random.default_rng(seed).choice(free, min(count, len(free)), replace=False))
