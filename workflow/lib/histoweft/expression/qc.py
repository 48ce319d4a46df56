"""Quality control: which barcodes and genes are kept, which filter removed the others, and how many."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.copies import fingerprints, first_of
from histoweft.errors import Fault, InputError
from histoweft.io import CountsFile, CsrWriter, atomic
from histoweft.normalise import row_sums

MAD_TO_SD = 1.4826
"""A median absolute deviation times this estimates the standard deviation of normally distributed values."""


COPY_GENES, COPY_PANEL = 20, 100
"""Barcodes are copies of one another where they show the same counts in all genes of a panel at least this large, and
at least so many genes: shallow bins and cells of a small panel are equal by chance."""


@dataclass(frozen=True)
class QcOptions:
    """What is filtered; None (or, for a minimum, 0) switches a filter off.

    The names are those of the options under `expression.qc`.

    Parameters
    ----------
    min_genes, max_genes
        Fewest and most genes a barcode may show.
    min_counts, max_counts
        Fewest and most counts a barcode may have.
    max_pct_mito
        Largest share of mitochondrial counts a barcode may have, in percent.
    min_spots
        Fewest barcodes, of those kept, a gene must be found in.
    mads
        Adaptive thresholds for each sample: barcodes whose log counts or log genes lie more than this many median
        absolute deviations below the median, or whose mitochondrial share lies as far above it, are removed [1]_.
    doublets
        ``none``, ``flag`` (score and call each kept barcode) or ``remove`` (drop those called doublets) [2]_.
    mito_genes
        Names of the mitochondrial genes; None or empty: those whose name begins with `mito_prefix`, in any case.
    seed
        For the simulated doublets.

    References
    ----------
    .. [1] McCarthy et al. 2017, Bioinformatics 33:1179 (scater).
    .. [2] Wolock et al. 2019, Cell Systems 8:281 (Scrublet).
    """

    min_genes: int | None = 200
    max_genes: int | None = None
    min_counts: float | None = None
    max_counts: float | None = 30_000
    max_pct_mito: float | None = None
    min_spots: int = 3
    mads: float | None = None
    doublets: str = "none"
    mito_genes: Sequence[str] | None = None
    mito_prefix: str = "mt-"
    seed: int = 0


@dataclass
class QcResult:
    """What quality control did.

    Attributes
    ----------
    table
        One row for each active filter, in the order in which they were applied: filter (name of its option), rule (in
        words), axis (barcodes or genes), threshold, removed_alone (by this filter if it were the only one), removed
        (by this one and none before it), remaining.
    barcodes
        Index: all barcodes. n_genes, n_counts, pct_mito (NaN where no mitochondrial gene was measured), reason (the
        first rule that removed the barcode; empty where it is kept), kept; doublet_score and doublet if asked for.
    genes
        Index: all genes. n_spots (kept barcodes that show the gene), kept.
    notes
        What a reader of the table should know.
    """

    table: pd.DataFrame
    barcodes: pd.DataFrame
    genes: pd.DataFrame
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Filter:
    """One filter of barcodes: `quantity` below (side -1) or above (side +1) `threshold` is removed."""

    name: str
    rule: str
    quantity: str
    side: int
    threshold: float

    def removes(self, metrics: pd.DataFrame) -> np.ndarray:
        values = metrics[self.quantity].to_numpy(dtype=float)
        return values < self.threshold if self.side < 0 else values > self.threshold


def select(chunk: sp.csr_matrix, rows: np.ndarray, columns: np.ndarray) -> sp.csr_matrix:
    """Keep some rows and columns of a chunk.

    Parameters
    ----------
    chunk
        rows x columns.
    rows, columns
        Booleans.
    """
    if not rows.all():
        chunk = chunk[rows]
    return chunk if columns.all() else chunk[:, np.flatnonzero(columns)]


def mitochondrial(names: pd.Index, genes: Sequence[str] | None = None, prefix: str = "mt-") -> np.ndarray:
    """Say which genes are mitochondrial: those listed, or those whose name begins with `prefix` in any case."""
    if genes:
        return names.isin(list(genes))
    return np.asarray(names.str.lower().str.startswith(prefix.lower()), dtype=bool)


def _check_values(path: Any, where: slice, data: np.ndarray) -> None:
    low = data.min(initial=0)
    if not low >= 0 or (data.dtype.kind == "f" and not np.isfinite(data.max(initial=0))):
        found = f"the value {low}" if low < 0 else "a value that is not finite"
        raise InputError(
            [
                Fault(
                    f"{path}: X, rows {where.start + 1} to {where.stop}",
                    found,
                    "counts, zero or more",
                    "Give the raw counts of this sample, not scaled or log-transformed values.",
                )
            ]
        )


def measure(
    counts: CountsFile,
    mito: np.ndarray,
    passes: Callable[[pd.DataFrame], np.ndarray] | None = None,
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Measure each barcode and gene in one pass over the counts.

    Parameters
    ----------
    counts
        Cells x genes.
    mito
        Which genes are mitochondrial, (genes,) booleans.
    passes
        Given the metrics of some barcodes, says which are kept; None keeps all.

    Returns
    -------
    metrics
        Index: barcodes; n_genes, n_counts, pct_mito.
    spots, spots_kept
        In how many barcodes, and in how many of those kept, each gene is found; (genes,) integers.

    Raises
    ------
    InputError
        A value is negative or not finite.
    """
    metrics = pd.DataFrame(
        {"n_genes": np.zeros(counts.n_obs, dtype=np.int32), "n_counts": 0.0, "pct_mito": np.nan},
        index=counts.obs_names,
    )
    n_genes, n_counts, pct_mito = (metrics[name].to_numpy().copy() for name in metrics)
    spots = np.zeros(counts.n_vars, dtype=np.int64)
    lost = np.zeros(counts.n_vars, dtype=np.int64)
    for where, chunk in counts.chunks():
        _check_values(counts.path, where, chunk.data)
        if not chunk.data.all():
            chunk.eliminate_zeros()
        lengths = np.diff(chunk.indptr)
        n_genes[where] = lengths
        n_counts[where] = row_sums(chunk)
        if mito.any():
            share = row_sums(chunk, mito)
            pct_mito[where] = 100 * share / np.maximum(n_counts[where], np.finfo(float).tiny)
        spots += np.bincount(chunk.indices, minlength=counts.n_vars)
        if passes is not None:
            here = {"n_genes": lengths, "n_counts": n_counts[where], "pct_mito": pct_mito[where]}
            removed = ~passes(pd.DataFrame(here))
            if removed.any():
                lost += np.bincount(chunk.indices[np.repeat(removed, lengths)], minlength=counts.n_vars)
    metrics["n_genes"], metrics["n_counts"], metrics["pct_mito"] = n_genes, n_counts, pct_mito
    return metrics, spots, spots - lost


def _fixed_filters(options: QcOptions) -> list[_Filter]:
    known = [
        ("min_genes", "fewer than {} genes", "n_genes", -1),
        ("min_counts", "fewer than {} counts", "n_counts", -1),
        ("max_counts", "more than {} counts", "n_counts", 1),
        ("max_genes", "more than {} genes", "n_genes", 1),
        ("max_pct_mito", "more than {} % mitochondrial", "pct_mito", 1),
    ]
    filters = []
    for name, rule, quantity, side in known:
        threshold = getattr(options, name)
        if threshold is not None and not (side < 0 and threshold == 0):
            filters.append(_Filter(name, rule.format(f"{threshold:,}"), quantity, side, float(threshold)))
    return filters


def adaptive_threshold(values: np.ndarray, mads: float, side: int, logarithmic: bool) -> float:
    """Put a threshold some median absolute deviations off the median.

    Parameters
    ----------
    values
        Of one sample; NaN are left out.
    mads
        How many (scaled to standard deviations of a normal distribution).
    side
        -1: below the median, +1: above it.
    logarithmic
        Measure on log(1 + value).

    Returns
    -------
    The threshold in the unit of `values`; infinite (nothing is removed) where more than half of the values are the
    same, because a deviation of zero says nothing about what is unusual.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    values = np.log1p(values) if logarithmic else values
    if len(values) == 0:
        return side * np.inf
    middle = np.median(values)
    deviation = MAD_TO_SD * np.median(np.abs(values - middle))
    if deviation == 0:
        return side * np.inf
    threshold = middle + side * mads * deviation
    return float(np.expm1(threshold)) if logarithmic else float(threshold)


def _adaptive_filters(metrics: pd.DataFrame, mads: float) -> list[_Filter]:
    filters = []
    for quantity, side, logarithmic, words in (
        ("n_counts", -1, True, "unusually few counts"),
        ("n_genes", -1, True, "unusually few genes"),
        ("pct_mito", 1, False, "unusually mitochondrial"),
    ):
        threshold = adaptive_threshold(metrics[quantity].to_numpy(), mads, side, logarithmic)
        filters.append(_Filter(f"mads:{quantity}", words, quantity, side, threshold))
    return filters


def _call_doublets(counts: CountsFile, kept: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Score and call doublets among the kept barcodes with Scrublet; needs their counts in memory."""
    import anndata
    import scanpy as sc

    parts = [chunk[kept[where]] for where, chunk in counts.chunks()]
    adata = anndata.AnnData(sp.vstack(parts, format="csr").astype(np.float32))
    sc.pp.filter_genes(adata, min_cells=3)
    sc.pp.scrublet(adata, random_state=seed, verbose=False, n_prin_comps=min(30, *(n - 1 for n in adata.shape)))
    scores = np.full(counts.n_obs, np.nan)
    called = np.zeros(counts.n_obs, dtype=bool)
    scores[kept] = adata.obs["doublet_score"]
    # Scrublet gives no calls where it finds no threshold between its two modes.
    called[kept] = adata.obs.get("predicted_doublet", pd.Series(False, adata.obs_names)).fillna(False).astype(bool)
    return scores, called


def _copies(counts: CountsFile, metrics: pd.DataFrame, kept: np.ndarray) -> np.ndarray:
    """Say which of the kept barcodes are exact copies of an earlier one of them."""
    rows = kept & (metrics["n_genes"] >= COPY_GENES).to_numpy() & (counts.n_vars >= COPY_PANEL)
    rows[rows] = metrics.loc[rows, ["n_genes", "n_counts"]].duplicated(keep=False)
    prints = [fingerprints(counts.rows(span)[rows[span]]) for span in counts.spans() if rows[span].any()]
    copies = np.zeros(counts.n_obs, dtype=bool)
    if prints:
        copies[rows] = first_of(np.concatenate(prints)) != np.arange(rows.sum())
    return copies


def _spots_among(counts: CountsFile, rows: np.ndarray) -> np.ndarray:
    """Count in how many of some barcodes each gene is found; reads only the chunks that hold one."""
    found = np.zeros(counts.n_vars, dtype=np.int64)
    for where in counts.spans():
        if rows[where].any():
            chunk = counts.rows(where)[rows[where]]
            found += np.bincount(chunk.indices[chunk.data != 0], minlength=counts.n_vars)
    return found


def quality_control(counts: CountsFile, options: QcOptions | None = None) -> QcResult:
    """Decide which barcodes and genes are kept.

    Parameters
    ----------
    counts
        Raw counts of one sample, cells x genes.
    options
        What is filtered; the defaults of `QcOptions` when left out.

    Returns
    -------
    The decisions, with their reasons. Barcodes are judged first, genes by the barcodes that are left.

    Raises
    ------
    InputError
        No barcode or no gene is left, or a value is negative or not finite.
    """
    options = options or QcOptions()
    mito = mitochondrial(counts.var_names, options.mito_genes, options.mito_prefix)
    filters = _fixed_filters(options)

    def passes(metrics: pd.DataFrame) -> np.ndarray:
        return ~np.logical_or.reduce([f.removes(metrics) for f in filters] or [np.zeros(len(metrics), bool)])

    metrics, spots, spots_kept = measure(counts, mito, passes if filters else None)
    notes = _notes(options, mito)
    early = passes(metrics)
    if options.mads is not None:
        filters = filters + _adaptive_filters(metrics, options.mads)
    masks = [f.removes(metrics) for f in filters]
    rows, reason = _sequence(filters, masks, counts.n_obs)
    kept = reason == ""
    if not kept.any():
        raise _nothing_left(counts, options, rows, filters, metrics)
    copies = _copies(counts, metrics, kept)
    if n := int(copies.sum()):
        reason[copies] = "exact copy of another barcode"
        kept = reason == ""
        rows.append(("copies", "exact copy of another barcode", "barcodes", np.nan, n, n, int(kept.sum())))
        notes.append(
            f"{n:,} of {counts.n_obs:,} barcodes are exact copies of other barcodes (the same counts in all "
            f"{counts.n_vars:,} genes) and were removed: was the same file joined twice?"
        )
    if options.doublets != "none":
        metrics["doublet_score"], metrics["doublet"] = _call_doublets(counts, kept, options.seed)
        called = metrics["doublet"].to_numpy()
        if options.doublets == "remove":
            reason[called] = "doublet"
            kept = reason == ""
            n = int(called.sum())
            rows.append(("doublets", "called a doublet", "barcodes", np.nan, n, n, int(kept.sum())))
    if (early & ~kept).any():
        spots_kept = spots_kept - _spots_among(counts, early & ~kept)
    genes_kept = spots_kept >= max(options.min_spots, 1)
    rows.append(
        (
            "min_spots",
            f"found in fewer than {max(options.min_spots, 1)} spots",
            "genes",
            float(max(options.min_spots, 1)),
            int((spots < max(options.min_spots, 1)).sum()),
            int((~genes_kept).sum()),
            int(genes_kept.sum()),
        )
    )
    if not genes_kept.any():
        raise _no_gene_left(counts, options, int(kept.sum()), spots_kept)
    columns = ["filter", "rule", "axis", "threshold", "removed_alone", "removed", "remaining"]
    metrics["reason"], metrics["kept"] = reason, kept
    genes = pd.DataFrame({"n_spots": spots_kept, "kept": genes_kept}, index=counts.var_names)
    return QcResult(pd.DataFrame(rows, columns=columns), metrics, genes, notes)


def _notes(options: QcOptions, mito: np.ndarray) -> list[str]:
    if mito.any() or (options.max_pct_mito is None and options.mads is None):
        return []
    return ["No mitochondrial gene was measured, so the mitochondrial filter removes nothing."]


def _sequence(filters: list[_Filter], masks: list[np.ndarray], n: int) -> tuple[list[tuple], np.ndarray]:
    """Apply filters one after another: rows of the table, and the rule that removed each barcode first."""
    reason = np.full(n, "", dtype=object)
    rows = []
    for entry, mask in zip(filters, masks):
        fresh = mask & (reason == "")
        reason[fresh] = entry.rule
        removed, left = int(fresh.sum()), int((reason == "").sum())
        threshold = entry.threshold if np.isfinite(entry.threshold) else np.nan
        rows.append((entry.name, entry.rule, "barcodes", threshold, int(mask.sum()), removed, left))
    return rows, reason


def _nothing_left(
    counts: CountsFile, options: QcOptions, rows: list[tuple], filters: list[_Filter], metrics: pd.DataFrame
) -> InputError:
    if counts.n_obs == 0:
        return InputError.one(counts.path, "no barcode at all", "one or more", "Check the sample's input.")
    worst = max(range(len(rows)), key=lambda i: rows[i][4])
    entry, alone = filters[worst], rows[worst][4]
    values = metrics[entry.quantity].dropna().to_numpy(dtype=float)
    option = entry.name.split(":")[0]
    words = {"n_genes": "genes", "n_counts": "counts", "pct_mito": "% mitochondrial counts"}[entry.quantity]
    if option == "mads":
        hint = "Raise it, or set it to null and choose fixed thresholds."
    else:
        keeps = np.floor(np.percentile(values, 10)) if entry.side < 0 else np.ceil(np.percentile(values, 90))
        hint = f"A value of {keeps:g} would keep about 90 % of the barcodes; null switches this filter off."
    found = (
        f"no barcode left in {counts.path}: {entry.rule} removed {alone:,} of {counts.n_obs:,} "
        f"(seen: median {np.median(values):,.4g}, largest {values.max():,.4g} {words} a barcode)"
    )
    expected = "a threshold that leaves barcodes"
    return InputError.one(f"option expression.qc.{option} = {getattr(options, option):g}", found, expected, hint)


def _no_gene_left(counts: CountsFile, options: QcOptions, n_kept: int, spots: np.ndarray) -> InputError:
    largest = int(spots.max(initial=0))
    found = (
        f"no gene left in {counts.path}: none of {counts.n_vars:,} is found in so many of the {n_kept:,} barcodes "
        f"kept (median {np.median(spots) if len(spots) else 0:g}, largest {largest:,} barcodes a gene)"
    )
    keeps = max(1, int(np.percentile(spots[spots > 0], 10))) if largest else 1
    hint = f"A value of {keeps} would keep about 90 % of the genes found at all."
    where = f"option expression.qc.min_spots = {options.min_spots}"
    return InputError.one(where, found, "a threshold that leaves genes", hint)


def filter_counts(
    in_path: str | os.PathLike, out_path: str | os.PathLike, options: QcOptions | None = None
) -> QcResult:
    """Filter a file of counts into another, a chunk of rows at a time.

    Parameters
    ----------
    in_path
        h5ad, cells x genes, raw counts.
    out_path
        h5ad with the kept barcodes and genes; obs gains n_genes, n_counts, pct_mito (measured on all genes), var
        gains n_spots. Written atomically, and not at all when nothing is left.
    options
        What is filtered.

    Returns
    -------
    The decisions, with their reasons.

    Raises
    ------
    InputError
        As `quality_control`; or the file cannot be read.
    """
    with CountsFile(in_path) as counts:
        result = quality_control(counts, options)
        kept, genes = result.barcodes["kept"].to_numpy(), result.genes["kept"].to_numpy()
        obs = counts.obs()
        for name in result.barcodes.columns.drop(["reason", "kept"]):
            obs[name] = result.barcodes[name].to_numpy()
        var = counts.var()
        var["n_spots"] = result.genes["n_spots"].to_numpy()
        obsm = {name: counts.obsm(name)[kept] for name in counts.obsm_names()}
        with atomic(out_path) as partial, CsrWriter(partial, int(genes.sum()), counts.dtype) as writer:
            for where, chunk in counts.chunks():
                if kept[where].any():
                    writer.append(select(chunk, kept[where], genes))
            writer.finish(obs[kept], var[genes], obsm=obsm, uns=counts.uns)
    return result
