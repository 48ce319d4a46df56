"""How far along cells are: diffusion pseudotime from a root, and the root itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from histoweft.convergence import or_dense
from histoweft.errors import Faults, nearest

if TYPE_CHECKING:
    from histoweft.trajectory.cells import Cells

ROOT_SHARE = 0.01
FEWEST_ROOT_CELLS = 10
DENSE_CELLS = 4_000
"""Up to so many cells a matrix of all pairs is held, where an iteration did not converge."""

_STEADY = 0.9994
"""Eigenvalues from here on belong to a component of the graph each; the same constant as scanpy's."""


@dataclass(frozen=True)
class Diffusion:
    """Eigenvectors of the diffusion over a graph.

    Attributes
    ----------
    values
        (k,) eigenvalues, falling.
    vectors
        cells x k, of the symmetric transition matrix.
    parts
        (cells,) number of the graph's component that a cell lies in.
    """

    values: np.ndarray
    vectors: np.ndarray
    parts: np.ndarray

    @property
    def scaled(self) -> np.ndarray:
        """Return cells x k coordinates between which Euclidean distances are diffusion pseudotime distances."""
        steady = self.values >= _STEADY
        weights = np.where(steady, 1.0, self.values / np.where(steady, 1.0, 1 - self.values))
        return self.vectors * weights


def diffuse(
    connectivities: sp.csr_matrix, n_components: int = 15, seed: int = 0, notes: list[str] | None = None
) -> Diffusion:
    """Decompose the density-corrected diffusion over a neighbour graph.

    Parameters
    ----------
    connectivities
        cells x cells, symmetric weights.
    n_components
        Eigenvectors; fewer where there are fewer cells.
    seed
        Of the iteration's start.
    notes
        Gains a sentence where the iteration did not converge and all eigenvectors were computed instead.

    Raises
    ------
    HistoweftError
        The iteration does not converge, and there are more than `DENSE_CELLS` cells.

    Notes
    -----
    Coifman et al. 2005 (PNAS 102:7426): weights are divided by the density at both ends, then made a symmetric
    transition matrix. Haghverdi et al. 2016 (Nature Methods 13:845) sum over walks of all lengths; scanpy computes the
    same.
    """
    from scipy.sparse.linalg import eigsh

    weights = sp.csr_matrix(connectivities, dtype=np.float64)
    inverse = sp.diags(_inverse(np.asarray(weights.sum(axis=0)).ravel()))
    weights = inverse @ weights @ inverse
    root = sp.diags(np.sqrt(_inverse(np.asarray(weights.sum(axis=0)).ravel())))
    symmetric = (root @ weights @ root).tocsr()
    n = symmetric.shape[0]
    k = min(n_components, n - 2)
    start = np.random.default_rng(seed).standard_normal(n)
    values, vectors = or_dense(
        lambda: eigsh(symmetric, k=k, which="LM", v0=start),
        lambda: _all_eigenvectors(symmetric, k),
        n <= DENSE_CELLS,
        f"pseudotime: the diffusion over {n:,} cells did not converge. Its neighbour graph falls into many "
        "groups that hold together by little: raise trajectory.neighbours, or name the groups that belong "
        "together in trajectory.groups.",
        f"the iteration for the diffusion over {n:,} cells did not converge, so all eigenvectors were computed",
        None if notes is None else notes.append,
    )
    order = np.argsort(values)[::-1]
    return Diffusion(values[order], vectors[:, order], connected_components(weights, directed=False)[1])


def _all_eigenvectors(symmetric: sp.csr_matrix, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k eigenvalues of largest size, with their vectors, by a dense and exact way."""
    values, vectors = np.linalg.eigh(symmetric.toarray())
    largest = np.argsort(-np.abs(values), kind="stable")[:k]
    return values[largest], vectors[:, largest]


def _inverse(values: np.ndarray) -> np.ndarray:
    return np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)


def diffusion_pseudotime(diffusion: Diffusion, root: int) -> np.ndarray:
    """Return the diffusion distance of each cell from the root, 0 to 1; NaN where the graph does not lead there."""
    points = diffusion.scaled
    distance = np.sqrt(((points - points[root]) ** 2).sum(axis=1))
    reached = diffusion.parts == diffusion.parts[root]
    largest = distance[reached].max()
    return np.where(reached, distance / (largest if largest > 0 else 1.0), np.nan)


# ------------------------------------------------------------------------------------------------------- CytoTRACE


def neighbour_weights(connectivities: sp.csr_matrix) -> sp.csr_matrix:
    """Return weights, rows summing to one, that average values over a cell and its neighbours (scVelo's moments)."""
    weights = sp.csr_matrix(connectivities, dtype=np.float64) + sp.identity(connectivities.shape[0])
    return (sp.diags(1 / np.asarray(weights.sum(axis=1)).ravel()) @ weights).tocsr()


def correlate(values: sp.csc_matrix, with_: np.ndarray) -> np.ndarray:
    """Correlate each column of a sparse matrix with columns of a dense one, without making it dense.

    Parameters
    ----------
    values
        cells x genes.
    with_
        cells x k.

    Returns
    -------
    genes x k Pearson correlations; NaN where either side is constant.
    """
    n = values.shape[0]
    values = sp.csc_matrix(values, dtype=np.float64)
    centred = with_ - with_.mean(axis=0)
    products = values.T @ centred
    mean = np.asarray(values.mean(axis=0)).ravel()
    square = np.asarray(values.multiply(values).sum(axis=0)).ravel() - n * mean**2
    size = np.sqrt(np.outer(np.clip(square, 0, None), (centred**2).sum(axis=0)))
    known = size > 1e-12 * n
    return np.clip(np.divide(products, size, out=np.full(size.shape, np.nan), where=known), -1, 1)


def cytotrace(values: sp.csc_matrix, n_genes: np.ndarray, weights: sp.csr_matrix, n_top: int = 200) -> np.ndarray:
    """Score how undifferentiated cells are, by how many genes they express.

    Parameters
    ----------
    values
        cells x genes, log-normalised.
    n_genes
        (cells,) number of genes detected.
    weights
        See `neighbour_weights`.
    n_top
        Genes that go best with `n_genes`; of a small panel, those that go with it at all.

    Returns
    -------
    (cells,) 0 (differentiated) to 1; 0 everywhere where no gene goes with `n_genes`.

    Notes
    -----
    Gulati et al. 2020 (Science 367:405) in CellRank's form (Lange et al. 2022, Nature Methods 19:159): the mean of the
    best genes, each averaged over a cell's neighbours.
    """
    correlation = correlate(values, np.asarray(n_genes, dtype=float)[:, None])[:, 0]
    best = np.argsort(-np.nan_to_num(correlation, nan=-np.inf), kind="stable")[:n_top]
    best = best[correlation[best] > 0]
    if len(best) == 0:
        return np.zeros(values.shape[0])
    score = weights @ (np.asarray(values[:, best].mean(axis=1)).ravel())
    span = np.ptp(score)
    return (score - score.min()) / (span if span > 0 else 1.0)


# ------------------------------------------------------------------------------------------------------------ root


def find_root(
    cells: Cells, root: Mapping[str, Any], young: np.ndarray, diffusion: Diffusion, averaging: sp.csr_matrix
) -> int:
    """Find the cell that pseudotime starts at.

    Parameters
    ----------
    cells
        See `cells.read_cells`.
    root
        ``by``: ``barcode`` (this cell), ``label`` (the member of this group farthest from all others), ``gene`` (the
        middle of the cells that express these genes most, averaged over neighbours) or ``cytotrace`` (the middle of the
        least differentiated cells); ``value``: which one, or a list of genes or groups.
    young
        `cytotrace`.
    averaging
        `neighbour_weights`.

    Raises
    ------
    InputError
        There is no such barcode, group or variable gene.
    """
    by, values = root["by"], root["value"] if isinstance(root["value"], list) else [root["value"]]
    if by == "cytotrace":
        return central_cell(cells.points, highest(young))
    known = {"barcode": cells.barcodes, "gene": cells.genes, "label": pd.Index(sorted(set(cells.labels) - {""}))}[by]
    faults = Faults()
    for value in map(str, values):
        if value not in known:
            what = {"barcode": "a barcode that enters the trajectory", "gene": "a variable gene", "label": "a group"}[
                by
            ]
            examples = f"{what}, such as {', '.join(map(str, known[:5]))}"
            faults.add("config: trajectory.root.value", repr(value), examples, nearest(value, known))
    faults.raise_if_any()
    at = known.get_indexer([str(value) for value in values])
    if by == "barcode":
        return int(at[0])
    if by == "label":
        return farthest_of_group(diffusion, np.isin(cells.labels, known[at]))
    # Each gene counts alike, however strongly it is expressed.
    expression = averaging @ np.asarray(cells.values[:, at].todense())
    spread = expression.std(axis=0)
    return central_cell(cells.points, highest((expression / np.where(spread > 0, spread, 1)).sum(axis=1)))


def central_cell(points: np.ndarray, cells: np.ndarray) -> int:
    """Return the cell nearest to the middle (median) of some cells."""
    middle = np.median(points[cells], axis=0)
    return int(cells[((points[cells] - middle) ** 2).sum(axis=1).argmin()])


def highest(score: np.ndarray) -> np.ndarray:
    """Return the cells of highest score: one in a hundred, ten at least."""
    n = min(len(score), max(FEWEST_ROOT_CELLS, int(np.ceil(ROOT_SHARE * len(score)))))
    return np.argsort(-score, kind="stable")[:n]


def farthest_of_group(diffusion: Diffusion, members: np.ndarray) -> int:
    """Return the member of a group that lies farthest, by diffusion, from all cells outside it."""
    points = diffusion.scaled
    cells = np.flatnonzero(members)
    others = points[~members] if (~members).any() else points
    # The mean squared distance to many points is that to their mean, up to a constant.
    return int(cells[((points[cells] - others.mean(axis=0)) ** 2).sum(axis=1).argmax()])
