"""Genes that tell one cluster from the rest.

The p-values are descriptive only: the clusters were found in the same counts that are tested here, so even cells that
differ by chance alone give small ones. Rank by effect (AUROC, fold change), not by significance.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.io import CountsFile
from histoweft.normalise import normalise, row_sums
from histoweft.significance import adjust

BLOCK_NNZ = 20_000_000
"""Stored values of a block of genes, at most (unless one gene alone has more): about 0.5 GB with working copies."""

COLUMNS = (
    "cluster",
    "rank",
    "gene",
    "gene_id",
    "auroc",
    "log2_fold_change",
    "pct_in",
    "pct_out",
    "mean_in",
    "mean_out",
    "score",
    "p_value",
    "p_adjusted",
)


class RankSums:
    """What the rank-sum test needs to know of each gene and cluster.

    Attributes
    ----------
    sums
        clusters x genes; ranks of the cluster's cells among all cells, added up (ties share their mean rank).
    ties
        (genes,); sum over groups of t equal values of t^3 - t.
    detected
        clusters x genes; cells with a value above zero.
    totals
        clusters x genes; sum of exp(value) - 1, that is, of the scaled counts.
    """

    def __init__(self, n_clusters: int, n_genes: int):
        self.sums = np.zeros((n_clusters, n_genes))
        self.ties = np.zeros(n_genes)
        self.detected = np.zeros((n_clusters, n_genes))
        self.totals = np.zeros((n_clusters, n_genes))

    def add(self, block: sp.csc_matrix, genes: np.ndarray, codes: np.ndarray, sizes: np.ndarray) -> None:
        """Rank a block of genes over all cells.

        Parameters
        ----------
        block
            cells x genes of the block; non-negative values.
        genes
            Where the block's columns stand among all genes.
        codes
            Cluster of each cell, (cells,) integers.
        sizes
            Cells of each cluster.
        """
        n_cells, n_clusters = len(codes), len(sizes)
        for column, gene in enumerate(genes):
            span = slice(block.indptr[column], block.indptr[column + 1])
            values, of = block.data[span], codes[block.indices[span]]
            # Only values above zero are sorted: all zeros are one group of ties below them.
            zeros = n_cells - len(values)
            order = np.argsort(values)
            ordered = values[order]
            starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
            equal = np.diff(starts, append=len(ordered)).astype(np.float64)
            ranks = np.repeat(zeros + starts + (equal + 1) / 2, equal.astype(np.int64))
            detected = np.bincount(of, minlength=n_clusters)
            self.detected[:, gene] = detected
            self.totals[:, gene] = np.bincount(of, weights=np.expm1(values, dtype=np.float64), minlength=n_clusters)
            above = np.bincount(of[order], weights=ranks, minlength=n_clusters)
            self.sums[:, gene] = above + (sizes - detected) * (zeros + 1) / 2
            self.ties[gene] = (equal**3 - equal).sum() + float(zeros) ** 3 - zeros


def _gene_blocks(detected: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Cut the genes into consecutive blocks of about `budget` stored values."""
    block = (np.cumsum(detected) - detected) // budget
    for number in np.unique(block):
        yield np.flatnonzero(block == number)


def _rank_all(counts: CountsFile, codes: np.ndarray, sizes: np.ndarray, target_sum: float, budget: int) -> RankSums:
    totals, stored = np.zeros(counts.n_obs), np.zeros(counts.n_vars, dtype=np.int64)
    for where, chunk in counts.chunks():
        totals[where] = row_sums(chunk)
        stored += np.bincount(chunk.indices, minlength=counts.n_vars)
    found = RankSums(len(sizes), counts.n_vars)
    for genes in _gene_blocks(stored, budget):
        parts = []
        for where, chunk in counts.chunks():
            part = chunk if len(genes) == counts.n_vars else chunk[:, genes]
            parts.append(normalise(part, target_sum, totals[where]))
        block = sp.vstack(parts, format="csc") if len(parts) > 1 else parts[0].tocsc()
        del parts
        block.eliminate_zeros()
        found.add(block, genes, codes, sizes)
    return found


def _cluster_order(labels: pd.Series) -> list[str]:
    names = labels.dropna().astype(str).unique()
    return sorted(names, key=lambda name: (0, int(name), "") if name.isdigit() else (1, 0, name))


def rank_markers(
    path: str | os.PathLike,
    labels: pd.Series,
    target_sum: float = 10_000,
    pseudocount: float = 0.1,
    block_nnz: int = BLOCK_NNZ,
) -> pd.DataFrame:
    """Compare each cluster with all other cells, gene by gene, by the Wilcoxon rank-sum test.

    All genes of the file are tested, on log(1 + counts scaled to `target_sum`). The normalised matrix is made for a
    block of genes at a time. The p-values describe, they do not confirm: clusters and test share the same counts.

    Parameters
    ----------
    path
        h5ad, cells x genes, filtered raw counts.
    labels
        Cluster of each barcode; index: barcodes, the file's all among them.
    target_sum
        As in the normalisation.
    pseudocount
        Added to both means, in counts per `target_sum`, before the fold change: keeps the ratio of two genes hardly
        measured from looking large.
    block_nnz
        Stored values a block holds.

    Returns
    -------
    One row for each cluster and gene, best first within its cluster: cluster, rank (1 = largest score), gene, gene_id,
    auroc (chance that a cell of the cluster shows more than a cell outside), log2_fold_change (of the mean scaled
    counts), pct_in, pct_out (percent of cells that show the gene), mean_in, mean_out (mean scaled counts), score (z of
    the rank sum, corrected for ties), p_value (two-sided, normal approximation), p_adjusted (over the genes of one
    cluster). Empty when there are fewer than two clusters.

    Raises
    ------
    ValueError
        A barcode of the file has no label.
    """
    with CountsFile(path) as counts:
        names = counts.var_names
        var = counts.var()
        labels = labels.reindex(counts.obs_names)
        if labels.isna().any():
            raise ValueError(f"{path}: {int(labels.isna().sum())} barcodes have no cluster")
        labels = labels.astype(str)
        clusters = _cluster_order(labels)
        if len(clusters) < 2:
            return pd.DataFrame(columns=list(COLUMNS))
        codes = pd.Categorical(labels, categories=clusters).codes.astype(np.int64)
        sizes = np.bincount(codes, minlength=len(clusters)).astype(np.float64)
        found = _rank_all(counts, codes, sizes, target_sum, block_nnz)
    gene_id = var["gene_id"].astype(str).to_numpy() if "gene_id" in var else names.to_numpy()
    tables = [
        _one_cluster(found, sizes, number, pseudocount).assign(cluster=cluster, gene=names, gene_id=gene_id)
        for number, cluster in enumerate(clusters)
    ]
    ranked = []
    for table in tables:
        table = table.sort_values(["score", "auroc", "gene"], ascending=[False, False, True], kind="stable")
        ranked.append(table.assign(rank=np.arange(1, len(table) + 1, dtype=np.int32)))
    return pd.concat(ranked, ignore_index=True)[list(COLUMNS)]


def _one_cluster(found: RankSums, sizes: np.ndarray, number: int, pseudocount: float) -> pd.DataFrame:
    from scipy.special import ndtr

    n, inside = sizes.sum(), sizes[number]
    outside = n - inside
    spread = np.sqrt(inside * outside / 12 * ((n + 1) - found.ties / (n * (n - 1))))
    centred = found.sums[number] - inside * (n + 1) / 2
    # A gene with the same value everywhere has no spread, and says nothing.
    score = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9)
    p_value = 2 * ndtr(-np.abs(score))
    mean_in = found.totals[number] / inside
    mean_out = (found.totals.sum(axis=0) - found.totals[number]) / outside
    return pd.DataFrame(
        {
            "auroc": (found.sums[number] - inside * (inside + 1) / 2) / (inside * outside),
            "log2_fold_change": np.log2((mean_in + pseudocount) / (mean_out + pseudocount)),
            "pct_in": 100 * found.detected[number] / inside,
            "pct_out": 100 * (found.detected.sum(axis=0) - found.detected[number]) / outside,
            "mean_in": mean_in,
            "mean_out": mean_out,
            "score": score,
            "p_value": p_value,
            "p_adjusted": adjust(p_value),
        }
    )


def top_markers(
    markers: pd.DataFrame, per_cluster: int = 4, min_pct: float = 10.0, min_fold_change: float = 0.0
) -> pd.DataFrame:
    """Choose the best markers of each cluster.

    Parameters
    ----------
    markers
        See `rank_markers`.
    per_cluster
        How many; fewer where not so many qualify.
    min_pct
        Percent of the cluster's cells that must show the gene.
    min_fold_change
        The log2 fold change must be larger.

    Returns
    -------
    Rows of `markers`, in their order.
    """
    fit = (markers["pct_in"] >= min_pct) & (markers["log2_fold_change"] > min_fold_change) & (markers["score"] > 0)
    return markers[fit].groupby("cluster", sort=False).head(per_cluster).reset_index(drop=True)


def marker_panel(
    markers: pd.DataFrame, per_cluster: int = 1, min_pct: float = 10.0, min_fold_change: float = 0.0
) -> pd.DataFrame:
    """Choose a panel of distinct genes: for each cluster in turn, its best markers that no cluster before it took.

    Parameters
    ----------
    markers, per_cluster, min_pct, min_fold_change
        As `top_markers`.

    Returns
    -------
    Rows of `markers`; each gene once. A cluster without a qualifying gene has no row.
    """
    able = top_markers(markers, len(markers), min_pct, min_fold_change)
    taken: set[str] = set()
    rows: list[int] = []
    for _, group in able.groupby("cluster", sort=False):
        fresh = group[~group["gene"].isin(taken)].head(per_cluster)
        taken.update(fresh["gene"])
        rows.extend(fresh.index)
    return able.loc[rows].reset_index(drop=True)


def marker_summary(
    path: str | os.PathLike, labels: pd.Series, genes: Sequence[str], target_sum: float = 10_000
) -> pd.DataFrame:
    """Summarise some genes in each cluster, for a dot plot.

    Parameters
    ----------
    path, labels, target_sum
        As `rank_markers`.
    genes
        Names of genes of the file.

    Returns
    -------
    One row for each cluster and gene: cluster, gene, pct (percent of cells that show it), mean (of log(1 + scaled
    counts)).
    """
    with CountsFile(path) as counts:
        columns = counts.var_names.get_indexer(list(genes))
        if (columns < 0).any():
            raise ValueError(f"{path}: no gene {list(genes)[int(np.argmin(columns))]!r}")
        labels = labels.reindex(counts.obs_names).astype(str)
        clusters = _cluster_order(labels)
        codes = pd.Categorical(labels, categories=clusters).codes.astype(np.int64)
        means, shown = np.zeros((len(clusters), len(genes))), np.zeros((len(clusters), len(genes)))
        for where, chunk in counts.chunks():
            part = normalise(chunk[:, columns], target_sum, row_sums(chunk)).toarray()
            np.add.at(means, codes[where], part)
            np.add.at(shown, codes[where], part > 0)
    sizes = np.bincount(codes, minlength=len(clusters))[:, None]
    return pd.DataFrame(
        {
            "cluster": np.repeat(clusters, len(genes)),
            "gene": np.tile(np.asarray(genes, dtype=object), len(clusters)),
            "pct": (100 * shown / sizes).ravel(),
            "mean": (means / sizes).ravel(),
        }
    )
