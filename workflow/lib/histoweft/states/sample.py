"""All states of one sample: from its counts to one table a barcode, facts for the study, and scores against a truth."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import Faults, InputError, nearest
from histoweft.graph.neighbours import neighbour_graph
from histoweft.io import CountsFile, read_table
from histoweft.states import cycle, persister, rare
from histoweft.states.scores import Moments, moments, normalised, score, ulm
from histoweft.states.signatures import CYCLE, G2M_PHASE, S_PHASE, Panel, check_programmes, match, read_signatures

MARKERS = 8
"""Genes named for each rare population."""

FEWEST_PROGRAMMES = 2
"""Persisters raise programmes jointly: one alone, out of several that were asked for, calls none."""

_FATE = "fate_"
_ENTROPY = "fate_entropy"
_PER_MILLION = 1e6


@dataclass(frozen=True)
class Sample:
    """What is known of one sample.

    Attributes
    ----------
    barcodes
        In the order of everything else.
    genes
        Symbols.
    clusters
        Table of `histoweft.graph.leiden.cluster`.
    labels
        Cell type of each barcode, None without an annotation.
    shares
        Share of each cell type in each spot, None without a deconvolution.
    fates
        Table of the trajectory, None without one.
    points
        Principal components, (n, k).
    """

    barcodes: pd.Index
    genes: pd.Index
    clusters: pd.DataFrame
    labels: pd.Series | None
    shares: pd.DataFrame | None
    fates: pd.DataFrame | None
    points: np.ndarray


@dataclass(frozen=True)
class Found:
    """What was found in one sample.

    Attributes
    ----------
    table
        Index: barcodes; see `analyse`.
    facts
        What the study needs to know beside the table; plain values.
    floors
        Scores of the floors of each barcode: mean_signature, gpx4, depth (log counts), smallest_cluster.
    """

    table: pd.DataFrame
    facts: dict[str, Any]
    floors: pd.DataFrame


def read_sample(
    counts: CountsFile,
    features: str | os.PathLike,
    clusters: str | os.PathLike,
    annotation: str | os.PathLike | None = None,
    proportions: str | os.PathLike | None = None,
    fates: str | os.PathLike | None = None,
) -> Sample:
    """Read what earlier stages say of a sample, in the order of its counts."""
    names = counts.obs_names
    with CountsFile(features) as chosen:
        points = np.asarray(chosen.obsm("X_pca"), dtype=np.float32)
    shares = read_table(proportions, names) if proportions else None
    if shares is not None:
        shares = shares[[column for column in shares if f"low:{column}" in shares]]
    return Sample(
        names,
        counts.var_names,
        read_table(clusters, names),
        read_table(annotation, names)["label"] if annotation else None,
        shares,
        read_table(fates, names) if fates else None,
        points,
    )


def coarsest(clusters: pd.DataFrame) -> pd.Series:
    """Return the clusters of the lowest resolution."""
    columns = [column for column in clusters if column.startswith("leiden_")]
    return clusters[min(columns, key=lambda column: float(column.partition("_")[2]))]


def eligible(sample: Sample, groups: list[str], least_share: float) -> np.ndarray:
    """Say which barcodes may persist: those of the groups asked for, all where none is named.

    Parameters
    ----------
    groups
        Cell types. A spot counts when these make up at least `least_share` of it, or by its label without proportions.

    Raises
    ------
    InputError
        There are no cell types, or a group is none of them.
    """
    if not groups:
        return np.ones(len(sample.barcodes), dtype=bool)
    where = "config: states.persister.groups"
    if sample.shares is None and sample.labels is None:
        hint = "Name a reference (annotation.reference), or leave states.persister.groups empty."
        raise InputError.one(where, ", ".join(groups), "cell types, which this study does not annotate", hint)
    known = set(sample.labels.dropna().astype(str)) if sample.labels is not None else set()
    if sample.labels is not None and isinstance(sample.labels.dtype, pd.CategoricalDtype):
        known |= set(map(str, sample.labels.cat.categories))
    known |= set() if sample.shares is None else set(sample.shares.columns)
    faults = Faults()
    for group in groups:
        if group not in known:
            faults.add(where, repr(group), f"one of {', '.join(sorted(known))}", nearest(group, known))
    faults.raise_if_any()
    if sample.shares is not None and set(groups) <= set(sample.shares.columns):
        return sample.shares[groups].sum(axis=1).to_numpy() >= least_share
    return sample.labels.astype(str).isin(groups).to_numpy()


def analyse(
    counts: CountsFile, sample: Sample, options: Mapping[str, Any], tables: list, target_sum: float, neighbours: int,
    seed: int = 0,
) -> Found:  # fmt: skip
    """Find the states of every barcode.

    Parameters
    ----------
    counts
        Raw counts of the sample.
    sample
        See `read_sample`.
    options
        The config's section states.
    tables
        Tables of signatures.
    target_sum
        Total that each barcode is scaled to before log1p.
    neighbours
        Neighbours of a barcode in the graph that rare populations are looked for in, itself included.
    seed
        Of drawn gene sets, null samples and clustering.

    Returns
    -------
    Found. Its table: s_score, g2m_score, phase, signature_<name> for each signature with enough genes, persister_score,
    persister, rare, rare_score, rare_group ("" outside), transitional, transition_score. Scores that need genes which
    the sample lacks are NaN, and nothing is called by them.
    """
    signatures = read_signatures(tables)
    programmes = options["persister"]["programmes"]
    check_programmes(programmes, list(dict.fromkeys(signatures["signature"])))
    panel = match(signatures, sample.genes, options["min_genes"])
    joined = panel.pick(programmes)
    enough = len(joined.names) >= min(FEWEST_PROGRAMMES, len(programmes))
    about = moments(counts, target_sum)
    scores, phase_scores = _signature_scores(counts, about, panel, target_sum, options["method"])
    allowed = eligible(sample, options["persister"]["groups"], options["persister"]["min_share"])
    asked = joined if enough else panel.pick([])
    found, corrected = _persisters(
        counts, sample, about, asked, panel, phase_scores, allowed, options, target_sum, seed
    )
    groups, mixed, between = _structure(sample, about, phase_scores, options, neighbours, seed)

    table = pd.DataFrame(index=sample.barcodes.rename("barcode"))
    table["s_score"], table["g2m_score"] = phase_scores[S_PHASE], phase_scores[G2M_PHASE]
    table["phase"] = cycle.phases(table["s_score"].to_numpy(), table["g2m_score"].to_numpy())
    for name in panel.names:
        table[f"signature_{name}"] = scores[name]
    table["persister_score"], table["persister"] = found.score, found.called
    table["rare"], table["rare_score"], table["rare_group"] = False, groups.score, ""
    for number, group in enumerate(groups.groups, 1):
        at = table.index[group.members]
        table.loc[at, "rare"], table.loc[at, "rare_group"] = True, f"R{number}"
    table["transitional"], table["transition_score"] = between, mixed

    warnings = panel.warnings() if panel.names else ["No signature has enough genes in this panel."]
    if panel.names and not enough:
        warnings.append(
            f"Persisters are not scored: {len(joined.names)} of {len(programmes)} programmes have enough genes."
        )
    if enough and found.sets == 0:
        warnings.append(
            "Persisters are not scored: too few barcodes that may persist, or too few genes to compare with."
        )
    facts = {
        "barcodes": len(table),
        "eligible": int(allowed.sum()),
        "persisters": int(found.called.sum()),
        "corrected_for": ["sequencing depth", *corrected],
        "programmes": asked.names,
        "threshold": float(found.threshold) if found.called.any() else None,
        "false_positive_rate": found.false_positive_rate,
        "sets": found.sets,
        "fdr": options["persister"]["fdr"],
        "coverage": panel.coverage.to_dict("records"),
        "warnings": warnings,
        "pseudobulk": pseudobulk(counts, allowed, panel),
        "transitional_by": "fates" if sample.fates is not None else "mixing of clusters",
        "transitional": int(between.sum()),
        "rare": _rare_facts(groups, _markers(counts, about, target_sum, table["rare_group"])),
    }
    return Found(table, facts, _floors(counts, sample, about, joined, target_sum))


def _rare_facts(groups: rare.Rare, markers: list[list[str]]) -> list[dict[str, Any]]:
    found = zip(groups.groups, groups.isolation, groups.p, markers, strict=True)
    return [
        {"group": f"R{number}", "n": len(group.members), "isolation": isolation, "p": p, "markers": genes}
        for number, (group, isolation, p, genes) in enumerate(found, 1)
    ]


def _signature_scores(
    counts: CountsFile, about: Moments, panel: Panel, target_sum: float, method: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the score of each signature, and of the cell cycle's against genes expressed alike (NaN without genes)."""
    known = [name for name in CYCLE if name in panel.names]
    contrasts = [cycle.contrast(about.mean, panel.members(name)) for name in known]
    parts, cycles = [], []
    for _, values in normalised(counts, about.totals, target_sum):
        parts.append(score(values, panel.weights, method))
        cycles.append(
            (values @ sp.hstack(contrasts, format="csc")).toarray() if known else np.zeros((len(parts[-1]), 0))
        )
    scores, cycles = np.concatenate(parts), np.concatenate(cycles)
    by_phase = {name: np.full(counts.n_obs, np.nan) for name in CYCLE}
    by_phase |= {name: cycles[:, at] for at, name in enumerate(known)}
    return {name: scores[:, at] for at, name in enumerate(panel.names)}, by_phase


def _known_cycle(phase_scores: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [values for values in phase_scores.values() if np.isfinite(values).all()]


def _persisters(
    counts: CountsFile, sample: Sample, about: Moments, programmes: Panel, panel: Panel,
    phase_scores: Mapping[str, np.ndarray], allowed: np.ndarray, options: Mapping[str, Any], target_sum: float,
    seed: int,
) -> tuple[persister.Found, list[str]]:  # fmt: skip
    asked = options["persister"]
    cells, source = persister.composition(sample.shares, sample.labels, coarsest(sample.clusters))
    cycles = _known_cycle(phase_scores)
    barred = np.concatenate([panel.members(name) for name in CYCLE])
    found = persister.find(
        normalised(counts, about.totals, target_sum), about, programmes.weights, barred,
        [*cycles, cells], allowed, n_sets=asked["null_sets"], fdr=asked["fdr"], seed=seed,
    )  # fmt: skip
    return found, (["cell cycle"] if cycles else []) + [source]


def _structure(
    sample: Sample, about: Moments, phase_scores: Mapping[str, np.ndarray], options: Mapping[str, Any],
    neighbours: int, seed: int,
) -> tuple[rare.Rare, np.ndarray, np.ndarray]:  # fmt: skip
    """Find rare populations and transitional barcodes in principal components free of cell cycle and depth.

    A small type's dividing cells would else be a rare population in every tissue.
    """
    asked = options["rare"]
    depth = np.log(np.maximum(about.totals, 1))
    basis = persister.design([depth, *_known_cycle(phase_scores)])
    usual = np.ones(len(depth), dtype=bool)
    points = persister.residuals(sample.points, basis, usual)
    n = len(points)
    k = min(neighbours, n)
    graph = neighbour_graph(points, k, seed)[0]
    codes = rare.states(sample.clusters["leiden"].to_numpy(), points, max(30, int(asked["max_share"] * n)))
    null = rare.learn_null(points, codes, k, asked["min_cells"], asked["max_share"], asked["null_samples"], seed)
    groups = rare.find(graph, null, asked["min_cells"], asked["max_share"], asked["false_positive_rate"], seed)
    if sample.fates is not None:
        entropy = sample.fates[_ENTROPY].to_numpy(dtype=float)
        return groups, entropy, np.nan_to_num(entropy) >= options["transitional"]["entropy"]
    mixed = rare.mixing(graph, codes)
    return groups, mixed, rare.transitional(mixed, null, options["transitional"]["fdr"])


def _markers(counts: CountsFile, about: Moments, target_sum: float, groups: pd.Series) -> list[list[str]]:
    """Return, for each rare group, the genes with the largest difference of mean expression to all other barcodes."""
    names = sorted(set(groups) - {""}, key=lambda name: int(name[1:]))
    if not names:
        return []
    member = np.column_stack([(groups == name).to_numpy(dtype=float) for name in names])
    sums = np.zeros((len(names), counts.n_vars))
    for where, values in normalised(counts, about.totals, target_sum):
        sums += (values.T @ member[where]).T
    sizes = member.sum(axis=0)[:, None]
    gaps = sums / sizes - (about.mean * counts.n_obs - sums) / (counts.n_obs - sizes)
    genes = counts.var_names
    return [[str(genes[at]) for at in np.argsort(-row, kind="stable")[:MARKERS]] for row in gaps]


def pseudobulk(counts: CountsFile, allowed: np.ndarray, panel: Panel) -> dict[str, float]:
    """Score the signatures in the sum of all barcodes that may persist: what patients are compared by."""
    if not panel.names or not allowed.any():
        return {}
    total = np.zeros(counts.n_vars)
    for where, chunk in counts.chunks():
        total += np.asarray(chunk[allowed[where]].sum(axis=0), dtype=float).ravel()
    profile = sp.csr_matrix(np.log1p(total * (_PER_MILLION / max(total.sum(), 1)))[None, :])
    return dict(zip(panel.names, map(float, ulm(profile, panel.weights)[0])))


def _floors(counts: CountsFile, sample: Sample, about: Moments, programmes: Panel, target_sum: float) -> pd.DataFrame:
    """Return what the simplest scores make of each barcode."""
    raised = np.unique(programmes.weights.indices[programmes.weights.data > 0])
    gpx4 = np.flatnonzero(sample.genes.astype(str).str.upper() == "GPX4")[:1]
    mean, single = np.full(counts.n_obs, np.nan), np.full(counts.n_obs, np.nan)
    for where, values in normalised(counts, about.totals, target_sum):
        if len(raised):
            mean[where] = np.asarray(values[:, raised].mean(axis=1)).ravel()
        if len(gpx4):
            single[where] = values[:, gpx4].toarray().ravel()
    smallest = rare.smallest_cluster(sample.clusters["leiden"]).astype(float)
    columns = {"mean_signature": mean, "gpx4": single, "depth": np.log(np.maximum(about.totals, 1))}
    return pd.DataFrame(columns | {"smallest_cluster": smallest}, index=sample.barcodes)


def fate_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of fate probabilities."""
    return [column for column in table if column.startswith(_FATE) and column != _ENTROPY]
