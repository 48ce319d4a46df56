"""What surrounds persisters on the tissue: niches, neighbours, fates, ligands and receptors.

Persisters lie in clumps, and so does everything around them. The null keeps the clumps: the pattern of persisters is
turned, mirrored and shifted over the section as one piece, and what it then lies on is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.places import spacing
from histoweft.significance import adjust, upper_tail

MOVES = 999
"""Ways in which the pattern is laid over the section."""

FEWEST = 5
"""Persisters that a section must have to be asked what surrounds them."""

COLUMNS = ("observed", "expected", "log2_ratio", "z", "p", "n")
_MOST_POINTS = 2_000_000
_LEAST_LANDED = 0.3
_TINY = 1e-3


def associate(
    xy: np.ndarray, called: np.ndarray, eligible: np.ndarray, values: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """Compare values where persisters lie with values where their pattern could lie.

    Parameters
    ----------
    xy
        (n, 2), any unit.
    called
        (n,) persisters.
    eligible
        (n,) points that could persist; others, and places off the tissue, do not count for a moved pattern.
    values
        (n, m), of each point.
    seed
        Of the moves.

    Returns
    -------
    Index: columns of `values`; observed (mean over persisters), expected (mean over moves), log2_ratio, z, p (share of
    moves at least as high: one-sided), n (persisters). Empty with fewer than `FEWEST` persisters.
    """
    if called.sum() < FEWEST:
        return pd.DataFrame(columns=list(COLUMNS), index=pd.Index([], name="name"))
    table = values.to_numpy(dtype=float)
    observed = table[called].mean(axis=0)
    moved = np.array(list(_moved_means(xy, called, eligible, table, seed)))
    expected, spread = moved.mean(axis=0), moved.std(axis=0)
    found = pd.DataFrame(index=values.columns.rename("name"))
    found["observed"], found["expected"] = observed, expected
    found["log2_ratio"] = np.log2((observed + _TINY) / (expected + _TINY))
    found["z"] = np.divide(observed - expected, spread, out=np.zeros(len(observed)), where=spread > 0)
    found["p"] = (1 + (moved >= observed - 1e-12).sum(axis=0)) / (1 + len(moved))
    found["n"] = int(called.sum())
    return found


def _moved_means(xy: np.ndarray, called: np.ndarray, eligible: np.ndarray, table: np.ndarray, seed: int):
    """Lay the pattern over the section again and again; yield the mean of the values that it lands on."""
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    tree, pitch = cKDTree(xy), spacing(xy)
    low, size = xy.min(axis=0), np.ptp(xy, axis=0) + pitch
    pattern = xy[called] - xy[called].mean(axis=0)
    moves = int(np.clip(_MOST_POINTS // len(pattern), 99, MOVES))
    made = 0
    # Patterns that land on too little tissue are laid again; a section that never takes them has a limit of tries.
    for _ in range(20 * moves):
        angle, mirror = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [mirror * np.sin(angle), mirror * np.cos(angle)]])
        places = low + np.mod(pattern @ turn.T + rng.uniform(0, 1, 2) * size, size)
        distance, at = tree.query(places)
        at = at[(distance <= pitch) & eligible[at]]
        if len(at) >= max(3, _LEAST_LANDED * len(pattern) * eligible.mean()):
            yield table[at].mean(axis=0)
            made += 1
            if made == moves:
                return
    if made == 0:
        yield table[eligible].mean(axis=0)


def one_hot(labels: pd.Series) -> pd.DataFrame:
    """Return a column of zeros and ones for each name; missing labels belong to none."""
    return pd.get_dummies(labels.astype(object).where(labels.notna()), dtype=float)


def surroundings(graph: sp.csr_matrix, members: pd.DataFrame) -> pd.DataFrame:
    """Average what points are made of over their neighbours on the tissue, the point itself left out."""
    degree = np.diff(graph.indptr)
    around = (graph > 0).astype(float) @ members.to_numpy(dtype=float)
    return pd.DataFrame(around / np.maximum(degree, 1)[:, None], index=members.index, columns=members.columns)


def pair_scores(expression: pd.DataFrame, graph: sp.csr_matrix, pairs: pd.DataFrame) -> pd.DataFrame:
    """Multiply ligand and receptor across the neighbourhood of each point.

    Parameters
    ----------
    expression
        (n, genes) log-normalised.
    graph
        Neighbours on the tissue.
    pairs
        ligand_complex, receptor_complex; subunits joined by ``_``.

    Returns
    -------
    (n, 2 pairs) columns ``ligand^receptor|received`` (receptor here, ligand here or beside it) and ``|sent``
    (ligand here, receptor here or beside it). A complex is as high as its lowest subunit. Pairs with a gene outside
    of `expression` are left out.
    """
    n = len(expression)
    near = (graph > 0).astype(float) + sp.identity(n, format="csr")
    near = sp.diags(1 / np.asarray(near.sum(axis=1)).ravel()) @ near
    columns = {}
    for ligand, receptor in pairs[["ligand_complex", "receptor_complex"]].itertuples(index=False):
        units = [ligand.split("_"), receptor.split("_")]
        if not {unit for own in units for unit in own} <= set(expression.columns):
            continue
        one, other = (expression[list(unit)].to_numpy().min(axis=1) for unit in units)
        columns[f"{ligand}^{receptor}|received"] = other * (near @ one)
        columns[f"{ligand}^{receptor}|sent"] = one * (near @ other)
    return pd.DataFrame(columns, index=expression.index)


def combine(tables: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> pd.DataFrame:
    """Put the sections' tables under one another, and above them rows ``all`` that speak for the study.

    Parameters
    ----------
    tables
        Sample to a table with columns `keys` and `COLUMNS`.
    keys
        Columns that name a row.

    Returns
    -------
    sample, `keys`, `COLUMNS`, sections, q. In rows ``all`` z is the sum over sections divided by the root of their
    number (Stouffer 1949) and p its normal tail. q (Benjamini and Hochberg) is taken within each sample.
    """
    order = ["sample", *keys, *COLUMNS, "sections", "q"]
    parts = [table.assign(sample=sample, sections=1) for sample, table in tables.items() if len(table)]
    if not parts:
        return pd.DataFrame(columns=order)
    joined = pd.concat(parts, ignore_index=True)
    grouped = joined.groupby(list(keys), sort=False)
    whole = grouped.agg(
        observed=("observed", "mean"), expected=("expected", "mean"), z=("z", "sum"), n=("n", "sum"),
        sections=("sections", "sum"),
    ).reset_index()  # fmt: skip
    whole["z"] /= np.sqrt(whole["sections"])
    whole["p"] = upper_tail(whole["z"].to_numpy())
    whole["log2_ratio"] = np.log2((whole["observed"] + _TINY) / (whole["expected"] + _TINY))
    joined = pd.concat([whole.assign(sample="all"), joined], ignore_index=True)
    joined["q"] = joined.groupby("sample")["p"].transform(lambda p: adjust(p.to_numpy(dtype=float)))
    # Names of niches differ between studies, never between sections of one; "all" comes first, then the sheet's order.
    rank = {"all": 0} | {sample: number for number, sample in enumerate(tables, 1)}
    joined["rank"] = joined["sample"].map(rank)
    return joined.sort_values(["rank", "p"], kind="stable", ignore_index=True)[order]
