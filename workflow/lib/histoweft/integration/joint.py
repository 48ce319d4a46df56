"""One table of features for all sections: shared genes, genes variable in most sections, joint PCA."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft import io, linalg
from histoweft.errors import Fault, Faults, InputError
from histoweft.normalise import dispersion_table, row_sums, size_factors
from histoweft.species import disagreement, species_of

LABEL = "label"
_APART = "Samples of two species cannot be joined by their genes: give each species a study of its own, or exclude one."
_DESCRIBED = ("patient", "batch", "condition")


@dataclass(frozen=True)
class GeneMatch:
    """The genes that all sections have.

    Attributes
    ----------
    by
        ``"symbol"`` or ``"gene_id"``.
    keys
        The shared names, in the order of the first section.
    columns
        Section to the columns of its matrix, in the order of `keys`.
    """

    by: str
    keys: pd.Index
    columns: dict[str, np.ndarray]


def match_genes(genes: Mapping[str, pd.DataFrame], min_shared: int = 50) -> GeneMatch:
    """Find the genes that every section measured.

    Symbols and ids are both tried. Ids win when they share at least as many genes, because a symbol that stands
    twice in a section ("A", "A-1") need not mean the same gene in the next.

    Parameters
    ----------
    genes
        Section to its table of genes (index: symbol, unique; column ``gene_id``).
    min_shared
        Fewest shared genes that make sense; never more than the smallest section has.

    Returns
    -------
    GeneMatch

    Raises
    ------
    InputError
        Too few are shared; names the section that shares least with the others.
    """
    sections = list(genes)
    symbols = {s: pd.Index(genes[s].index.astype(str)) for s in sections}
    candidates = [("symbol", symbols)]
    if all("gene_id" in genes[s] for s in sections):
        ids = {s: pd.Index(genes[s]["gene_id"].astype(str)) for s in sections}
        if all(index.is_unique for index in ids.values()):
            candidates.insert(0, ("gene_id", ids))
    found = []
    for by, names in candidates:
        shared = names[sections[0]]
        for other in sections[1:]:
            shared = shared[shared.isin(names[other])]
        found.append((by, names, shared))
    by, names, shared = max(found, key=lambda item: len(item[2]))  # the first of equals: ids
    if len(shared) < min(min_shared, min(map(len, symbols.values()))) or len(shared) < 2:
        raise InputError([_too_few(names, shared, by, min_shared)])
    return GeneMatch(by, shared, {s: names[s].get_indexer(shared) for s in sections})


def _too_few(names: Mapping[str, pd.Index], shared: pd.Index, by: str, min_shared: int) -> Fault:
    sections = list(names)
    overlap = {s: np.median([len(names[s].intersection(names[t])) for t in sections if t != s]) for s in sections}
    odd = min(sections, key=overlap.__getitem__)
    sizes = ", ".join(f"{s} has {len(names[s])} (e.g. {names[s][0]})" for s in sections[:6])
    return Fault(
        "integration: genes shared by all sections",
        f"{len(shared)} by {by.replace('_', ' ')}; {sizes}; {odd!r} shares least with the others",
        f"at least {min_shared}",
        "Sections joined in one study need the same species, the same kind of gene names and overlapping panels; "
        f"put {odd!r} into a study of its own or give its genes the names that the others use.",
    )


def median_rank(scores: np.ndarray) -> np.ndarray:
    """Order genes by their median rank over sections, so that no single section decides.

    Parameters
    ----------
    scores
        sections x genes, larger is more variable; -inf for not at all.

    Returns
    -------
    numpy.ndarray
        Gene positions, best first; ties go to the gene of the higher mean score, then to the earlier one.
    """
    ranks = pd.DataFrame(scores).rank(axis=1, ascending=False, method="average").to_numpy()
    floor = np.min(scores[np.isfinite(scores)], initial=0.0)
    average = np.where(np.isfinite(scores), scores, floor).mean(axis=0)
    return np.lexsort((np.arange(scores.shape[1]), -average, np.median(ranks, axis=0)))


@dataclass
class _Section:
    """One open section: its counts and the totals its rows are scaled by."""

    counts: io.CountsFile
    columns: np.ndarray
    totals: np.ndarray
    target_sum: float

    def scaled(self, chosen: np.ndarray | None = None) -> Iterator[sp.csr_matrix]:
        """Yield chunks of counts scaled to `target_sum` (totals over all genes of the section)."""
        columns = self.columns if chosen is None else self.columns[chosen]
        factors = size_factors(self.totals, self.target_sum)
        pick = _picker(columns, self.counts.n_vars)
        for where, chunk in self.counts.chunks():
            part = sp.csr_matrix(chunk.astype(np.float64) @ pick)
            part.data *= np.repeat(factors[where], np.diff(part.indptr))
            part.sort_indices()
            yield part

    def logged(self, chosen: np.ndarray) -> Iterator[sp.csr_matrix]:
        for part in self.scaled(chosen):
            part.data = np.log1p(part.data)
            yield part.astype(np.float32)


def _picker(columns: np.ndarray, n: int) -> sp.csr_matrix:
    """Return the n x len(columns) matrix that picks and orders columns in one sparse product."""
    k = len(columns)
    return sp.csr_matrix((np.ones(k), (columns, np.arange(k))), shape=(n, k))


def _dispersion(section: _Section) -> np.ndarray:
    m = len(section.columns)
    total, squares = np.zeros(m), np.zeros(m)
    for part in section.scaled():
        total += np.bincount(part.indices, weights=part.data, minlength=m)
        squares += np.bincount(part.indices, weights=part.data**2, minlength=m)
    n = section.counts.n_obs
    mean = total / n
    scores = dispersion_table(mean, np.maximum(squares - n * mean**2, 0) / max(n - 1, 1))["dispersions_norm"]
    return scores.fillna(-np.inf).to_numpy()  # a gene without spread ranks last


def _observations(sample: str, counts: io.CountsFile, totals: np.ndarray) -> pd.DataFrame:
    barcodes = counts.obs_names.astype(str)
    about = counts.uns.get("histoweft", {})
    table = pd.DataFrame({"sample": sample}, index=pd.Index([f"{sample}:{b}" for b in barcodes]))
    for key in _DESCRIBED:
        table[key] = str(about.get(key, "") or (sample if key != "condition" else "unknown"))
    table["barcode"] = barcodes.to_numpy()
    table["total_counts"] = totals
    obs = counts.obs()
    # As objects: frames of categoricals with other categories do not concatenate to one.
    table[LABEL] = obs[LABEL].astype(object).to_numpy() if LABEL in obs else np.nan
    return table


def joint_features(
    filtered_paths: Mapping[str, str | os.PathLike],
    output: str | os.PathLike,
    *,
    variable_genes: int = 2_000,
    components: int = 30,
    target_sum: float = 10_000,
    min_shared: int = 50,
) -> dict[str, object]:
    """Write the joint features of several sections, reading each in chunks.

    Parameters
    ----------
    filtered_paths
        Section to its ``filtered.h5ad`` (raw counts; ``uns["histoweft"]`` names patient, batch, condition).
    output
        The joint ``features.h5ad``: X float32 CSR, log1p of counts scaled to `target_sum` (totals over all genes of
        the section, shared or not), joint variable genes only; obs sample, patient, batch, condition, barcode,
        total_counts, and label where a section has labels; index ``sample:barcode``; obsm X_pca, varm PCs, uns pca.
    variable_genes
        Genes kept: those of the best median rank over sections (see `dispersion_table`); all where fewer are shared.
    components
        Principal components; fewer where genes or cells are fewer.
    target_sum
        Counts each barcode is scaled to.
    min_shared
        Fewest genes that all sections must share.

    Returns
    -------
    dict
        ``n_obs, n_vars, shared_genes, matched_by, species, components, whole_counts``.

    Raises
    ------
    InputError
        Fewer than two sections, a section without barcodes, or too few shared genes.

    Notes
    -----
    Holds a chunk of one section, the genes x genes products and the cells x components result, never all values.
    """
    _check(filtered_paths)
    with ExitStack() as stack:
        opened = {s: stack.enter_context(io.CountsFile(p)) for s, p in filtered_paths.items()}
        _check_sizes(opened, filtered_paths)
        species = {s: species_of(f) for s, f in opened.items()}
        if faults := disagreement(species, "integration: species of the samples", _APART):
            raise InputError(faults)
        match = match_genes({s: f.var() for s, f in opened.items()}, min_shared)
        sections, whole = [], True
        for sample, counts in opened.items():
            totals = np.zeros(counts.n_obs)
            for where, chunk in counts.chunks():
                totals[where] = row_sums(chunk)
                whole = whole and (chunk.dtype.kind in "iu" or bool((chunk.data == np.rint(chunk.data)).all()))
            sections.append(_Section(counts, match.columns[sample], totals, target_sum))
        scores = np.vstack([_dispersion(section) for section in sections])
        order = median_rank(scores)[:variable_genes]
        rank = np.empty(len(order), dtype=np.int32)
        chosen = np.sort(order)  # columns in the order of the first section's genes
        rank[np.searchsorted(chosen, order)] = np.arange(len(order))

        covariance = linalg.Covariance(len(chosen))
        with io.atomic(output) as partial, io.CsrWriter(partial, len(chosen)) as writer:
            for section in sections:
                for part in section.logged(chosen):
                    covariance.add(part)
                    writer.append(part)
            k = min(components, len(chosen), covariance.n - 1)
            axes = covariance.components(k)
            pca = np.vstack([axes.project(part) for section in sections for part in section.logged(chosen)])
            obs = pd.concat([_observations(s, opened[s], x.totals) for s, x in zip(opened, sections, strict=True)])
            facts = {
                "n_obs": covariance.n,
                "n_vars": len(chosen),
                "shared_genes": len(match.keys),
                "matched_by": match.by,
                "species": ", ".join(sorted({str(one) for one in species.values()})),
                "components": k,
                "whole_counts": whole,
            }
            writer.finish(
                _tidy(obs),
                _genes(next(iter(opened.values())).var(), sections[0].columns[chosen], rank, scores[:, chosen]),
                obsm={"X_pca": pca},
                varm={"PCs": axes.axes.astype(np.float32)},
                uns={
                    "pca": {"variance": axes.variance, "variance_ratio": axes.variance_ratio},
                    "histoweft": {**facts, "target_sum": float(target_sum)},
                },
            )
    return facts


def _check(paths: Mapping[str, str | os.PathLike]) -> None:
    if len(paths) < 2:
        raise InputError(
            [
                Fault(
                    "integration",
                    f"{len(paths)} section{'s' if len(paths) != 1 else ''}",
                    "at least two sections to join",
                    "Add samples to the sheet, or leave this stage out.",
                )
            ]
        )


def _check_sizes(opened: Mapping[str, io.CountsFile], paths: Mapping[str, str | os.PathLike]) -> None:
    faults = Faults()
    for sample, counts in opened.items():
        if counts.n_obs == 0 or counts.n_vars == 0:
            faults.add(
                str(paths[sample]),
                f"{counts.n_obs} barcodes x {counts.n_vars} genes in section {sample!r}",
                "a section with barcodes and genes",
                "Loosen the filters under expression.qc, or take the section out of the sheet.",
            )
    faults.raise_if_any()


def _tidy(obs: pd.DataFrame) -> pd.DataFrame:
    for column in ("sample", *_DESCRIBED):
        obs[column] = pd.Categorical(obs[column], categories=list(dict.fromkeys(obs[column])))
    if obs[LABEL].isna().all():
        return obs.drop(columns=LABEL)
    obs[LABEL] = pd.Categorical(obs[LABEL].map(str, na_action="ignore"))
    return obs


def _genes(var: pd.DataFrame, columns: np.ndarray, rank: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    kept = var.iloc[columns]
    table = pd.DataFrame(index=kept.index.astype(str))
    table["gene_id"] = kept["gene_id"].astype(str).to_numpy() if "gene_id" in kept else table.index
    table["rank"] = rank
    table["dispersions"] = np.where(np.isfinite(scores), scores, np.nan).mean(axis=0)
    return table


def raw_counts(
    logged: sp.csr_matrix, totals: np.ndarray, target_sum: float = 10_000, *, whole: bool = True
) -> sp.csr_matrix:
    """Turn log-normalised values back into the counts they came from.

    Parameters
    ----------
    logged
        cells x genes, log1p of counts scaled to `target_sum`.
    totals
        Counts per cell over all genes, as scaled by.
    target_sum
        As in `joint_features`.
    whole
        Round to whole numbers; float32 logarithms keep counts apart up to about a million.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32.
    """
    counts = sp.csr_matrix(logged, dtype=np.float64, copy=True)
    counts.data = np.expm1(counts.data) * np.repeat(np.asarray(totals, float) / target_sum, np.diff(counts.indptr))
    if whole:
        counts.data = np.rint(counts.data)
    return counts.astype(np.float32)
