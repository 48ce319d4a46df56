"""All sections of a study on the same genes, and views of them: components of expression averaged over neighbours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import InputError, NotComputed
from histoweft.io import CountsFile
from histoweft.normalise import normalise
from histoweft.space.graph import Section, read_section
from histoweft.space.values import totals_and_found
from histoweft.species import disagreement, species_of

GENES = (300, 1_000, 2_000)
"""Numbers of the most spatially variable genes that the views are made of."""

NEIGHBOURS = (8, 18, 30)
"""Points that expression is averaged over, beside the point itself."""

DEPTH = 15
"""Components of a view."""

FEWEST_POINTS = 10
"""Points that a section needs."""

SAMPLED = 20_000
"""Points of the study that gene ranks and covariances are estimated from; all of them where there are fewer."""

_ADJACENT = 6
_PROJECTED = 60
_WHERE = "space.domains: genes of all sections"
_FEWEST_GENES = 4
_BLOCK = 2_048


# -------------------------------------------------------------------------------------------------- the sections


@dataclass(frozen=True)
class Tissue:
    """All sections of a study, on the genes that vary most over the tissue.

    Attributes
    ----------
    samples
        Names of the sections.
    barcodes
        Of each section.
    sections
        Positions of each section.
    values
        Of each section (n, genes): log1p of counts scaled to the study's median total.
    genes
        The most spatially variable first.
    moran
        Moran's I of each gene, mean over the sections.
    """

    samples: tuple[str, ...]
    barcodes: tuple[pd.Index, ...]
    sections: tuple[Section, ...]
    values: tuple[sp.csr_matrix, ...]
    genes: pd.Index
    moran: np.ndarray

    @cached_property
    def sizes(self) -> np.ndarray:
        """Number of points of each section."""
        return np.array([len(names) for names in self.barcodes])

    @cached_property
    def spans(self) -> list[slice]:
        """Rows of each section in arrays over all points."""
        ends = np.cumsum(self.sizes)
        return [slice(end - size, end) for end, size in zip(ends, self.sizes)]

    @cached_property
    def near(self) -> tuple[np.ndarray, ...]:
        """Nearest other points of each point, by section: (n, k) int32, nearest first; k is smaller in small ones."""
        return tuple(nearest(one.xy, max(NEIGHBOURS)) for one in self.sections)

    @cached_property
    def covariances(self) -> Covariances:
        """Covariances of the genes within sections; they cost most of a view and are the same for all."""
        return Covariances(self)

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Cut an array over all points into sections."""
        return [values[span] for span in self.spans]


def too_few(
    sizes: Mapping[str, int],
    needed: int = FEWEST_POINTS,
    words: str = "barcodes, domains need {needed} or more",
    none: str = "barcodes that domains need",
    option: str = "expression.qc",
) -> dict[str, str]:
    """Say which sections have too few points for a step.

    Parameters
    ----------
    sizes
        Sample to its number of points.
    needed
        Points that the step asks of a section.
    words, none
        The reason, after a section's number of points; and, after `needed`, what no section has.
    option
        What decides it.

    Returns
    -------
    Sample to the reason, in words.

    Raises
    ------
    NotComputed
        No section has enough.
    """
    found = {
        sample: f"{sample} has {size} {words.format(needed=needed)}. Option: {option}."
        for sample, size in sizes.items()
        if size < needed
    }
    if len(found) == len(sizes):
        raise NotComputed(f"no section has the {needed} {none}", option)
    return found


def read_tissue(paths: Mapping[str, str | os.PathLike], n_genes: int = max(GENES), seed: int = 0) -> Tissue:
    """Read the spatially most variable genes of all sections.

    Parameters
    ----------
    paths
        Sample to its ``filtered.h5ad``.
    n_genes
        Genes kept; all that vary where there are fewer.
    seed
        Of the sample of points that genes are ranked on, in large studies.

    Raises
    ------
    InputError
        A section has no positions, or too few genes are shared.
    NotComputed
        A section has too few points (leave it out, `too_few`), or too few genes vary.
    """
    with ExitStack() as stack:
        return _read({s: stack.enter_context(CountsFile(path)) for s, path in paths.items()}, n_genes, seed)


def _read(opened: Mapping[str, CountsFile], n_genes: int, seed: int) -> Tissue:
    sections = [read_section(counts) for counts in opened.values()]
    for reason in too_few({sample: counts.n_obs for sample, counts in opened.items()}).values():
        raise NotComputed(reason)
    apart = "Samples of two species cannot be joined by their genes: give each species a study of its own."
    if faults := disagreement({sample: species_of(counts) for sample, counts in opened.items()}, _WHERE, apart):
        raise InputError(faults)
    genes, columns = shared_genes({sample: counts.var() for sample, counts in opened.items()})
    totals = [totals_and_found(counts)[0] for counts in opened.values()]
    target = float(np.median(np.concatenate(totals))) or 1.0
    drawn = draw_rows([counts.n_obs for counts in opened.values()], seed)
    moran = np.zeros(len(genes))
    for counts, section, total, cols, rows in zip(opened.values(), sections, totals, columns, drawn):
        moran += _sampled_moran(counts, section.xy, total, cols, rows, target) / len(opened)
    order = np.argsort(-moran, kind="stable")[: min(n_genes, int((moran > -1).sum()))]
    if len(order) < _FEWEST_GENES:
        found = f"{len(order)} genes vary in every section ({', '.join(opened)})"
        raise NotComputed(f"{found}; domains need at least {_FEWEST_GENES}", "expression.qc.min_spots")
    values = []
    for counts, total, cols in zip(opened.values(), totals, columns):
        parts = [normalise(chunk[:, cols[order]], target, total[where]) for where, chunk in counts.chunks()]
        values.append(sp.vstack(parts, format="csr"))
    barcodes = tuple(counts.obs_names for counts in opened.values())
    return Tissue(tuple(opened), barcodes, tuple(sections), tuple(values), genes[order], moran[order])


def shared_genes(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.Index, list[np.ndarray]]:
    """Find the genes that all sections have, by id where that finds at least as many as by symbol.

    Parameters
    ----------
    tables
        Sample to its table of genes (index: unique symbols; column gene_id where there is one).

    Returns
    -------
    genes
        Symbols of the first section.
    columns
        For each section, the columns of these genes.

    Raises
    ------
    InputError
        The sections have almost no gene in common.
    """
    first = next(iter(tables.values()))
    keys = [[table.index.astype(str) for table in tables.values()]]
    if all("gene_id" in table and table["gene_id"].is_unique for table in tables.values()):
        keys.insert(0, [pd.Index(table["gene_id"].astype(str)) for table in tables.values()])
    kept = [np.logical_and.reduce([names[0].isin(other) for other in names]) for names in keys]
    best = int(np.argmax([mask.sum() for mask in kept]))
    names, mask = keys[best], kept[best]
    if mask.sum() < _FEWEST_GENES:
        sizes = ", ".join(f"{sample} has {len(table)} (e.g. {table.index[0]})" for sample, table in tables.items())
        hint = "Sections of one study need the same species and the same kind of gene names."
        raise InputError.one(_WHERE, f"{mask.sum()} shared; {sizes}", "more", hint)
    return first.index[mask], [other.get_indexer(names[0][mask]) for other in names]


def draw_rows(sizes: Sequence[int], seed: int, most: int = SAMPLED) -> list[np.ndarray]:
    """Draw rows of each section at random, in proportion to its size; all of them where they are few enough."""
    total = sum(sizes)
    if total <= most:
        return [np.arange(size) for size in sizes]
    rng = np.random.default_rng(seed)
    # Not fewer than a few hundred: a small section must be able to speak.
    wanted = [min(size, max(500, round(most * size / total))) for size in sizes]
    return [np.sort(rng.choice(size, n, replace=False)) for size, n in zip(sizes, wanted)]


def _sampled_moran(
    counts: CountsFile, xy: np.ndarray, totals: np.ndarray, columns: np.ndarray, rows: np.ndarray, target: float
) -> np.ndarray:
    """Moran's I of each gene over the points `rows` and their nearest neighbours; -1 for genes without spread."""
    near = nearest(xy, _ADJACENT)[rows]
    needed = np.unique(np.concatenate([rows, near.ravel()]))
    parts = []
    for where, chunk in counts.chunks():
        inside = needed[(needed >= where.start) & (needed < where.stop)] - where.start
        parts.append(normalise(chunk[inside][:, columns], target, totals[where][inside]))
    values = sp.vstack(parts, format="csr").astype(np.float64)
    at = np.searchsorted(needed, near)
    average = sp.csr_matrix(
        (np.full(at.size, 1 / at.shape[1]), at.ravel(), np.arange(0, at.size + 1, at.shape[1])),
        shape=(len(rows), len(needed)),
    )
    own, around = values[np.searchsorted(needed, rows)], average @ values
    n, mean = len(rows), np.asarray(own.mean(axis=0)).ravel()
    spread = np.asarray(own.multiply(own).sum(axis=0)).ravel() - n * mean**2
    product = np.asarray(own.multiply(around).sum(axis=0)).ravel() - mean * np.asarray(around.sum(axis=0)).ravel()
    return np.divide(product, spread, out=np.full(len(mean), -1.0), where=spread > 1e-6 * n)


def nearest(xy: np.ndarray, k: int) -> np.ndarray:
    """Find the nearest other points of each point.

    Parameters
    ----------
    xy
        (n, 2).
    k
        How many; an eighth of the points at most, so that an average stays local, but at least one.

    Returns
    -------
    (n, k) int32, nearest first.
    """
    from scipy.spatial import cKDTree

    k = max(1, min(k, len(xy) // 8))
    found = cKDTree(xy).query(xy, k=k + 1)[1].astype(np.int32)
    own = found == np.arange(len(xy))[:, None]
    # Several points at one place may hide the point itself: then the farthest goes.
    own[~own.any(axis=1), -1] = True
    return found[~own].reshape(len(xy), k)


def averaging(near: np.ndarray, k: int) -> sp.csr_matrix:
    """Return the (n, n) matrix that averages each point with its `k` nearest others, all with equal weight."""
    n, k = len(near), min(k, near.shape[1])
    columns = np.column_stack([np.arange(n, dtype=np.int32), near[:, :k]])
    weights = np.full(columns.size, 1 / (k + 1), dtype=np.float32)
    return sp.csr_matrix((weights, columns.ravel(), np.arange(0, columns.size + 1, k + 1)), shape=(n, n))


# ------------------------------------------------------------------------------------------------------- views


@dataclass(frozen=True)
class View:
    """One way to look at the tissue.

    Attributes
    ----------
    genes
        Number of the most spatially variable genes.
    unit_variance
        Whether each gene is given unit variance within its section.
    neighbours
        Points averaged over; 0 for none.
    """

    genes: int
    unit_variance: bool
    neighbours: int


def default_views(n_genes: int) -> list[View]:
    """Return the frozen set of views for a study of `n_genes` genes; small panels have fewer."""
    sizes = sorted({min(size, n_genes) for size in GENES})
    return [View(size, unit, k) for size in sizes for unit in (False, True) for k in NEIGHBOURS]


def iterate_views(tissue: Tissue, views: Sequence[View], depth: int = DEPTH) -> Iterator[tuple[View, np.ndarray]]:
    """Compute the principal components of each view, over all sections together.

    Parameters
    ----------
    tissue
        All sections.
    views
        Which views.
    depth
        Components; fewer where there are fewer genes or points.

    Yields
    ------
    view
        One of `views`, those that share genes and scaling together.
    scores
        (all points, depth) float32, by falling variance; each section has mean zero, so that a difference between
        sections as wholes (a batch) is no difference between domains.

    Notes
    -----
    Averaging over neighbours and projecting onto axes are both linear, so they commute: genes are projected once, and
    only the projections are averaged (Singhal et al. 2024, Nature Genetics 56:431, average the genes themselves).
    """
    covariances = tissue.covariances
    smooth: dict[int, list[sp.csr_matrix]] = {}
    groups = list(dict.fromkeys((view.genes, view.unit_variance, view.neighbours > 0) for view in views))
    for genes, unit, averaged in groups:
        axes = covariances.axes(genes, unit, averaged, max(depth, _PROJECTED))
        projected = []
        for values, scale in zip(tissue.values, covariances.scales):
            weights = axes / scale[:genes, None] if unit else axes
            projected.append(np.asarray(values[:, :genes] @ weights.astype(np.float32)))
        for view in views:
            if (view.genes, view.unit_variance, view.neighbours > 0) != (genes, unit, averaged):
                continue
            parts = projected
            if averaged:
                if view.neighbours not in smooth:
                    smooth[view.neighbours] = [averaging(near, view.neighbours) for near in tissue.near]
                parts = [matrix @ part for matrix, part in zip(smooth[view.neighbours], projected)]
            yield view, rotate(np.concatenate([part - part.mean(axis=0) for part in parts]), depth)


def rotate(points: np.ndarray, depth: int) -> np.ndarray:
    """Turn points of mean zero onto their first principal axes; signs are fixed by the entry of largest size."""
    products = points.T.astype(np.float64) @ points
    axes = _leading(products, min(depth, points.shape[1], max(len(points) - 1, 1)))
    return (points @ axes.astype(np.float32)).astype(np.float32)


def _leading(products: np.ndarray, k: int) -> np.ndarray:
    from scipy.linalg import eigh

    m = len(products)
    axes = eigh(products, subset_by_index=(m - k, m - 1))[1][:, ::-1]
    return axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(k)] < 0, -1, 1)


class Covariances:
    """Covariances of the genes within sections: as they are, averaged over neighbours, and of unit variance.

    Parameters
    ----------
    tissue
        All sections; of large studies `SAMPLED` points, always the same.

    Attributes
    ----------
    scales
        Standard deviation of each gene in each section.
    """

    def __init__(self, tissue: Tissue):
        m = len(tissue.genes)
        self._sums = {key: np.zeros((m, m)) for key in ((False, False), (False, True), (True, True))}
        self.scales = []
        drawn = draw_rows(tissue.sizes, 0)
        for values, near, rows in zip(tissue.values, tissue.near, drawn):
            mean = np.asarray(values.mean(axis=0)).ravel()
            variance = np.asarray(values.multiply(values).mean(axis=0)).ravel() - mean**2
            self.scales.append(np.sqrt(np.maximum(variance, 1e-8)))
            self._add(values, averaging(near, min(NEIGHBOURS)), rows)

    def _add(self, values: sp.csr_matrix, average: sp.csr_matrix, rows: np.ndarray) -> None:
        own = _centred_products(values, rows)
        around = _centred_products(values, rows, average)
        scale = self.scales[-1]
        self._sums[False, False] += own
        self._sums[False, True] += around
        self._sums[True, True] += around / np.outer(scale, scale)

    def axes(self, genes: int, unit: bool, averaged: bool, k: int) -> np.ndarray:
        """Return the first axes of the first `genes` genes, genes x k."""
        return _leading(self._sums[unit, averaged][:genes, :genes], min(k, genes))


def _centred_products(values: sp.csr_matrix, rows: np.ndarray, average: sp.csr_matrix | None = None) -> np.ndarray:
    """Sum products of genes over rows, minus what their means explain; made dense a block of rows at a time."""
    m = values.shape[1]
    products, total = np.zeros((m, m)), np.zeros(m)
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        block = (values[part] if average is None else average[part] @ values).toarray()
        products += block.T @ block
        total += block.sum(axis=0, dtype=np.float64)
    return products - np.outer(total, total) / len(rows)
