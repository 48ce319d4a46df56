"""Genes and ligand-receptor pairs that mark what resists: evidence side by side, and how many lines of it agree."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histoweft.cohort.contrasts import LEVEL
from histoweft.errors import InputError
from histoweft.significance import adjust

EVIDENCE = ("state", "niche", "fate", "response")
"""Lines of evidence: specific to persister cells, enriched in the adverse niche, driver of the fate that persister
cells have, higher without response."""

COLUMNS = (
    "rank", "target", "kind", *(f"{name}_{what}" for name in EVIDENCE for what in ("effect", "p")), "surface", "lines",
    "p", "q", "called", *(f"{name}_source" for name in EVIDENCE),
)  # fmt: skip


SHOWN = 500
"""Lines of the table for readers."""

_FEATURE_PAIR = "interaction:"


@dataclass(frozen=True)
class Adverse:
    """The niche that goes with no response.

    Attributes
    ----------
    niche
        Its name; empty where no niche does.
    p
        Of its abundance (two-sided).
    """

    niche: str = ""
    p: float = np.nan


def adverse_niche(microenvironment: pd.DataFrame) -> Adverse:
    """Find the niche that takes more of the tissue without response.

    Parameters
    ----------
    microenvironment
        See `contrasts.COLUMNS`, first: responders.

    Returns
    -------
    The one of smallest p below 0.05, or none.
    """
    is_niche = microenvironment["feature"].astype(str).str.startswith("niche:")
    rows = microenvironment[is_niche & (microenvironment["standardised"] < 0) & (microenvironment["p"] < LEVEL)]
    if rows.empty:
        return Adverse()
    best = rows.loc[rows["p"].idxmin()]
    return Adverse(best["feature"].removeprefix("niche:"), float(best["p"]))


def one_sided(effect: pd.Series, p: pd.Series) -> pd.Series:
    """Return the p of a positive effect from that of an effect of either sign."""
    return p.where(p.isna(), np.where(effect > 0, p / 2, 1 - p / 2))


def _place(places: pd.DataFrame, kind: str, group: str) -> pd.DataFrame:
    rows = places[(places["kind"] == kind) & (places["group"] == group)].set_index("gene")
    return pd.DataFrame({"effect": rows["effect"], "p": one_sided(rows["effect"], rows["p"])})


def gene_evidence(places: pd.DataFrame, genes: pd.DataFrame, adverse: Adverse) -> dict[str, pd.DataFrame]:
    """Gather the lines of evidence of genes.

    Parameters
    ----------
    places
        See `pseudobulk.PLACE_COLUMNS`; kind ``state`` (group persister), ``niche`` and ``fate`` are read.
    genes
        See `differential.COLUMNS`, first: responders. Empty without response.
    adverse
        See `adverse_niche`.

    Returns
    -------
    Evidence to effect and one-sided p, index: genes. Effects are log2, of fates a correlation.
    """
    against = genes.set_index("gene") if len(genes) else pd.DataFrame(columns=["effect", "p"], dtype=float)
    return {
        "state": _place(places, "state", "persister"),
        "niche": _place(places, "niche", adverse.niche),
        "fate": _place(places, "fate", "persister"),
        "response": pd.DataFrame({"effect": -against["effect"], "p": one_sided(-against["effect"], against["p"])}),
    }


def pair_evidence(
    pairs: list[str], by_gene: dict[str, pd.DataFrame], places: pd.DataFrame, features: pd.DataFrame, adverse: Adverse
) -> dict[str, pd.DataFrame]:
    """Gather the lines of evidence of ligand-receptor pairs.

    Parameters
    ----------
    pairs
        ``ligand^receptor``, complexes joined with ``_``.
    by_gene
        See `gene_evidence`: state and fate of a pair are those of its best gene, p times the number of its genes.
    places
        Kind ``niche_pair``: co-location inside a niche against elsewhere.
    features
        See `contrasts.COLUMNS`; features ``interaction:ligand^receptor``, first: responders.
    adverse
        See `adverse_niche`.
    """
    found = {name: _of_best_gene(pairs, by_gene[name]) for name in ("state", "fate")}
    found["niche"] = _place(places, "niche_pair", adverse.niche)
    rows = features[features["feature"].astype(str).str.startswith(_FEATURE_PAIR)]
    index = rows["feature"].astype(str).str.removeprefix(_FEATURE_PAIR)
    effect = pd.Series(-rows["standardised"].to_numpy(dtype=float), index=index)
    p = pd.Series(rows["p"].to_numpy(dtype=float), index=index)
    found["response"] = pd.DataFrame({"effect": effect, "p": one_sided(effect, p)})
    return found


def _of_best_gene(pairs: list[str], evidence: pd.DataFrame) -> pd.DataFrame:
    rows = {}
    for pair in pairs:
        genes = [g for g in pair.replace("^", "_").split("_") if g in evidence.index]
        if genes:
            own = evidence.loc[genes]
            best = own["p"].idxmin() if own["p"].notna().any() else own["effect"].idxmax()
            rows[pair] = (own.loc[best, "effect"], min(1.0, own.loc[best, "p"] * len(genes)))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["effect", "p"], dtype=float)


def agreement(p: np.ndarray) -> np.ndarray:
    """Test whether at least two lines of evidence hold.

    Parameters
    ----------
    p
        (candidates, lines), NaN where there is none.

    Returns
    -------
    (m - 1) times the second smallest of m p-values, valid however they depend on each other (Benjamini and Heller 2008,
    Biometrics 64:1215); NaN below two lines.
    """
    n = np.isfinite(p).sum(axis=1)
    second = np.sort(np.where(np.isfinite(p), p, np.inf), axis=1)[:, 1] if p.shape[1] > 1 else np.full(len(p), np.inf)
    return np.where(n >= 2, np.minimum(np.maximum(n - 1, 1) * second, 1), np.nan)


def rank(evidence: dict[str, tuple[dict[str, pd.DataFrame], dict[str, str]]], surface: set[str] | None) -> pd.DataFrame:
    """Rank candidates.

    Parameters
    ----------
    evidence
        Kind (gene, pair) to the tables of `gene_evidence` (`pair_evidence`) and the file that each line comes from.
    surface
        Genes at the surface or secreted; None where no table is given.

    Returns
    -------
    `COLUMNS`. `lines` counts p below 0.05; p asks for two lines or more (`agreement`); q is over genes and over pairs
    separately, times two for the two kinds; a target is called where q is below 0.05. Without p (fewer than three
    patients) candidates stand by their mean rank over lines and none is called.
    """
    parts = [_of_kind(kind, *of_kind) for kind, of_kind in evidence.items()]
    parts = [part for part in parts if len(part)] or parts[:1]
    table = pd.concat(parts, ignore_index=True)
    table["q"] = (table["q"] * len(parts)).clip(upper=1)
    table["called"] = table["q"] < LEVEL
    table["surface"] = None if surface is None else [_at_surface(t, surface) for t in table["target"]]
    ps = table[[f"{name}_p" for name in EVIDENCE]].to_numpy(dtype=float)
    known = np.where(np.isfinite(ps), np.clip(ps, 1e-300, 1), 1.0)
    order = pd.DataFrame(
        {"q": table["q"].fillna(2), "p": table["p"].fillna(2), "all": np.log(known).sum(axis=1), "rank": table["_mean"]}
    )
    table = table.loc[order.sort_values(list(order), kind="stable").index].reset_index(drop=True)
    table["rank"] = np.arange(1, len(table) + 1)
    return table[list(COLUMNS)]


def _of_kind(kind: str, tables: dict[str, pd.DataFrame], sources: dict[str, str]) -> pd.DataFrame:
    names = sorted(set().union(*(table.index for table in tables.values())))
    table = pd.DataFrame({"target": names, "kind": kind})
    for name in EVIDENCE:
        own = tables[name].reindex(names)
        table[f"{name}_effect"], table[f"{name}_p"] = own["effect"].to_numpy(), own["p"].to_numpy()
        there = np.isfinite(table[f"{name}_effect"].astype(float))
        table[f"{name}_source"] = np.where(there, sources.get(name, ""), "")
    ps = table[[f"{name}_p" for name in EVIDENCE]].to_numpy(dtype=float)
    table["lines"] = (ps < LEVEL).sum(axis=1)
    table["p"] = agreement(ps)
    table["q"] = adjust(table["p"].to_numpy())
    ranks = table[[f"{name}_effect" for name in EVIDENCE]].astype(float).rank(ascending=False, pct=True)
    table["_mean"] = ranks.mean(axis=1).fillna(1.0)
    return table


def _at_surface(target: str, surface: set[str]) -> bool:
    return any(gene in surface for gene in target.replace("^", "_").split("_"))


def read_surface(path: str | os.PathLike) -> set[str]:
    """Read a table whose column ``gene`` names genes at the surface or secreted.

    Raises
    ------
    InputError
        The file cannot be read or has no such column.
    """
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype=str, comment="#")
    except (OSError, ValueError) as error:
        raise InputError.one("config: cohort.surface", error, "a table with a column gene") from error
    if "gene" not in table:
        raise InputError.one(f"{path}, header", f"columns {', '.join(table)}", "a column 'gene'")
    return set(table["gene"].dropna().str.strip())


def find(
    places: pd.DataFrame,
    genes: pd.DataFrame,
    differences: pd.DataFrame,
    surface: set[str] | None,
    responds: bool,
    sources: dict[str, str],
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Rank all candidates of a study, and say what was found.

    Parameters
    ----------
    places
        See `pseudobulk.PLACE_COLUMNS`.
    genes
        See `differential.COLUMNS`.
    differences
        See `study.differences`.
    surface
        See `read_surface`.
    responds
        Whether the groups compared are responders and others; conditions are no evidence of resistance.
    sources
        places, genes, differences: the files, for the column of sources.

    Returns
    -------
    table
        See `rank`.
    said
        texts, warnings: sentences for the report.
    """
    if not responds:
        genes, differences = genes.head(0), differences.head(0)
    adverse = adverse_niche(differences)
    by_gene = gene_evidence(places, genes, adverse)
    interactions = differences["feature"].astype(str)
    pairs = {name.removeprefix(_FEATURE_PAIR) for name in interactions if name.startswith(_FEATURE_PAIR)}
    pairs |= set(places.loc[places["kind"] == "niche_pair", "gene"])
    by_pair = pair_evidence(sorted(pairs), by_gene, places, differences, adverse)
    of_genes = {name: sources["genes" if name == "response" else "places"] for name in EVIDENCE}
    of_pairs = of_genes | {"response": sources["differences"]}
    table = rank({"gene": (by_gene, of_genes), "pair": (by_pair, of_pairs)}, surface)
    return table, in_words(table, adverse, by_gene)


def in_words(table: pd.DataFrame, adverse: Adverse, evidence: dict[str, pd.DataFrame]) -> dict[str, list[str]]:
    """Say which targets are called, and which lines of evidence there are."""
    there = [name for name in EVIDENCE if evidence[name]["effect"].notna().any()]
    tested = [name for name in there if evidence[name]["p"].notna().any()]
    if not there:
        said = "No targets are ranked: neither persister states, fates, an adverse niche nor a response is known."
        return {"texts": [], "warnings": [said]}
    texts, warnings = [], []
    niche = f" The adverse niche is {adverse.niche} (p {adverse.p:.2g})." if adverse.niche else ""
    if len(tested) < 2:
        warnings.append(
            f"No target is called: {len(tested)} line(s) of evidence could be tested over patients "
            f"({', '.join(tested) or 'none'}), two must agree. Candidates stand by their effects.{niche}"
        )
        return {"texts": texts, "warnings": warnings}
    called = table[table["called"]]
    named = ", ".join(called["target"].head(5))
    texts.append(
        f"Targets by {len(tested)} lines of evidence ({', '.join(tested)}): {len(called)} of {len(table):,} candidates "
        f"are called (two lines or more agree, q < {LEVEL}{f'; first {named}' if named else ''}).{niche}"
    )
    return {"texts": texts, "warnings": warnings}
