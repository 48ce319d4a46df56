"""Niches: places whose surroundings are made of the same groups, and whether conditions differ in them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import InputError, NotComputed
from histoweft.graph.leiden import by_size
from histoweft.io import CountsFile, read_table
from histoweft.significance import LEVEL, adjust, design, rearranged
from histoweft.space.domains import agreements, even_out, vote
from histoweft.space.values import one_hot, read_labels
from histoweft.space.views import averaging, draw_rows

MOST_NICHES = 12
"""Largest number of niches that is tried when the number is to be estimated."""

RUNS = 6
"""k-means runs of each number of niches; they vote, and their agreement is the stability."""

TABLE_COLUMNS = (
    "niche", "first", "second", "share_first", "share_second", "log2_ratio", "n_first", "n_second", "p", "q",
    "smallest_p",
)  # fmt: skip
_TINY = 0.001
_STABLE = 0.9


def read_groups(
    kind: str,
    filtered: Mapping[str, str | os.PathLike],
    tables: Mapping[str, str | os.PathLike],
    joint: str | os.PathLike | None = None,
) -> dict[str, pd.Categorical]:
    """Read the group of each point of several sections, the same names meaning the same everywhere.

    Parameters
    ----------
    kind
        As `histoweft.space.values.read_labels` has it.
    filtered
        Sample to its counts.
    tables
        Sample to its clusters or annotation, where these are wanted.
    joint
        Clusters of all sections together (index ``sample:barcode``, column leiden); used instead of clusters of each
        section, whose numbers mean something else in the next one.

    Returns
    -------
    Sample to its groups, with the same categories.
    """
    found, table = {}, None if joint is None else read_table(joint)
    for sample, path in filtered.items():
        with CountsFile(path) as counts:
            if table is None:
                found[sample] = read_labels(kind, counts, tables.get(sample))
            else:
                keys = [f"{sample}:{barcode}" for barcode in counts.obs_names]
                found[sample] = pd.Categorical(table["leiden"].reindex(keys).astype(object))
    names = {str(name) for one in found.values() for name in one.categories}
    shared = sorted(names, key=lambda name: (not name.isdigit(), len(name) if name.isdigit() else 0, name))
    return {sample: one.set_categories(shared) for sample, one in found.items()}


def composition(near: np.ndarray, labels: pd.Categorical, k: int) -> np.ndarray:
    """Say what the surroundings of each point are made of.

    Parameters
    ----------
    near
        Nearest others of each point, (n, at least 1).
    labels
        Group of each point, missing where unknown.
    k
        Points around, beside the point itself.

    Returns
    -------
    (n, groups) float32 shares; a row without any known label has the section's mean.
    """
    members = one_hot(labels.codes.astype(np.int64), len(labels.categories))
    counts = (averaging(near, k) @ members).toarray().astype(np.float32)
    return _shares(counts, np.asarray(members.mean(axis=0)).ravel())


def _shares(counts: np.ndarray, mean: np.ndarray) -> np.ndarray:
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.where(totals > 0, totals, 1), mean / mean.sum()).astype(np.float32)


@dataclass(frozen=True)
class Niches:
    """Niches of all points of a study.

    Attributes
    ----------
    labels
        (points,) numbers, 0 the largest.
    profiles
        (niches, groups) mean composition.
    stability
        n, stability (mean adjusted Rand index between k-means runs), chosen; one row a number tried.
    """

    labels: np.ndarray
    profiles: np.ndarray
    stability: pd.DataFrame


def find_niches(
    compositions: Sequence[np.ndarray], around: Sequence[sp.csr_matrix], n: int | None = None, seed: int = 0
) -> Niches:
    """Cluster the surroundings of all points of a study together.

    Parameters
    ----------
    compositions
        Of each section, (points, groups); the same groups in all.
    around
        Of each section, weights of the neighbours, rows sum to one.
    n
        Niches; when None, the largest number whose k-means runs still agree (mean adjusted Rand index of 0.9 or more),
        else the number with the highest agreement.
    seed
        Of k-means.

    Raises
    ------
    InputError
        There are fewer different surroundings than the niches that the config asks for.
    NotComputed
        All surroundings are alike.

    Notes
    -----
    Square roots of shares (Hellinger 1909), so that rare groups are heard; k-means with several starts, which vote.
    """
    points = np.sqrt(np.concatenate(compositions))
    different = len(np.unique(points.round(4), axis=0))
    if different < (n or 2):
        found = f"{different} different surroundings"
        if n:
            raise InputError.one("config: space.niches.n", n, f"at most {different}", f"There are {found}.")
        raise NotComputed(f"there are {found}; niches need two", "space.niches.n")
    sizes = [len(one) for one in compositions]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows = np.concatenate([start + drawn for start, drawn in zip(starts, draw_rows(sizes, seed))])
    tried = [n] if n else list(range(2, min(MOST_NICHES, different) + 1))
    runs = {number: _runs(points, rows, number, seed) for number in tried}
    stability = [_mean_agreement(found[:, rows], number) for number, found in runs.items()]
    chosen = n or _largest_stable(tried, stability)
    votes = vote(runs[chosen], chosen, rows)
    labels = by_size(even_out(votes, sp.block_diag(around, format="csr"), 1.0))
    everything = np.concatenate(compositions)
    profiles = np.array([everything[labels == niche].mean(axis=0) for niche in range(labels.max() + 1)])
    table = pd.DataFrame({"n": tried, "stability": stability, "chosen": [number == chosen for number in tried]})
    return Niches(labels, profiles, table)


def _runs(points: np.ndarray, rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    found = [KMeans(n, n_init=3, random_state=seed + run).fit(points[rows]).predict(points) for run in range(RUNS)]
    return np.array(found, dtype=np.int16)


def _mean_agreement(runs: np.ndarray, n: int) -> float:
    return float(agreements(runs, n)[np.triu_indices(len(runs), 1)].mean())


def _largest_stable(tried: list[int], stability: list[float]) -> int:
    stable = [number for number, value in zip(tried, stability) if value >= _STABLE]
    return max(stable) if stable else tried[int(np.argmax(stability))]


def niche_tables(found: Niches, barcodes: Mapping[str, pd.Index]) -> dict[str, pd.DataFrame]:
    """Write niches as one table a section: index barcodes, column niche ("1" the largest of the study)."""
    names = [str(number + 1) for number in range(len(found.profiles))]
    tables, start = {}, 0
    for sample, index in barcodes.items():
        labels = found.labels[start : start + len(index)]
        niche = pd.Categorical.from_codes(labels, names)
        tables[sample] = pd.DataFrame({"niche": niche}, index=pd.Index(index, name="barcode"))
        start += len(index)
    return tables


def niche_shares(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how much of each section each niche takes, samples x niches."""
    shares = {sample: table["niche"].value_counts(normalize=True, sort=False) for sample, table in tables.items()}
    return pd.DataFrame(shares).T.rename_axis(index="sample", columns="niche")


# -------------------------------------------------------------------------------------- conditions and patients


def compare_conditions(
    shares: pd.DataFrame, patients: Mapping[str, str], conditions: Mapping[str, str], seed: int = 0
) -> tuple[pd.DataFrame, list[str]]:
    """Compare how much of the tissue each niche takes between conditions, patient by patient.

    Parameters
    ----------
    shares
        Index: samples; columns: niches; share of the sample's points.
    patients, conditions
        Of each sample.
    seed
        Of the arrangements drawn where there are too many to count.

    Returns
    -------
    table
        `TABLE_COLUMNS`: one row a niche and pair of conditions; mean share over patients, log2 of their ratio, number
        of patients, p (two-sided), q (Benjamini and Hochberg over all rows) and the smallest p that so few patients
        can give.
    notes
        What a reader must know: why there is no test, or how weak it must be.

    Notes
    -----
    Points of a tissue are no independent observations; patients are. Sections of one patient and condition are
    averaged first. Signs of the differences of patients with both conditions are turned in all ways (paired), or
    conditions are dealt in all ways to patients with one (Fisher 1935), whichever can give the smaller p-value.
    """
    frame = shares.copy()
    frame["patient"] = [patients[sample] for sample in frame.index]
    frame["condition"] = [conditions[sample] for sample in frame.index]
    frame = frame[frame["condition"] != ""]
    by_patient = frame.groupby(["condition", "patient"]).mean()
    names = list(dict.fromkeys(frame["condition"]))
    rows, notes = [], []
    for first, second in combinations(names, 2):
        found, note = _compare_two(by_patient.loc[first], by_patient.loc[second], seed)
        notes.append(f"{first} and {second}: {note}")
        rows += [{"niche": niche, "first": first, "second": second, **values} for niche, values in found.items()]
    table = pd.DataFrame(rows, columns=list(TABLE_COLUMNS))
    tested = table["p"].notna()
    table.loc[tested, "q"] = adjust(table.loc[tested, "p"].to_numpy(dtype=float))
    if len(names) < 2:
        notes.append("no conditions to compare: the sheet's column condition names fewer than two")
    return table, notes


def _compare_two(one: pd.DataFrame, other: pd.DataFrame, seed: int) -> tuple[dict, str]:
    paired = one.index.intersection(other.index)
    apart = one.drop(index=paired), other.drop(index=paired)
    both, smallest = design(len(paired), *map(len, apart))
    a, b = (one.loc[paired], other.loc[paired]) if both else apart
    if both:
        note = f"{len(paired)} patients with both, signs of their differences turned in all ways"
    else:
        note = f"{len(a)} and {len(b)} patients, conditions dealt in all ways"
    testable = smallest <= LEVEL
    if testable:
        note += f"; the smallest p they can give is {smallest:.2g}"
    else:
        note = f"{len(one.index.union(other.index))} patients: no test possible (smallest p {smallest:.2g})"
    found = {}
    for niche in one.columns:
        x, y = one[niche], other[niche]
        found[niche] = {
            "share_first": x.mean(),
            "share_second": y.mean(),
            "log2_ratio": float(np.log2((y.mean() + _TINY) / (x.mean() + _TINY))),
            "n_first": len(x),
            "n_second": len(y),
            "p": rearranged(a[niche].to_numpy(), b[niche].to_numpy(), both, seed) if testable else np.nan,
            "q": np.nan,
            "smallest_p": smallest,
        }
    return found, note
