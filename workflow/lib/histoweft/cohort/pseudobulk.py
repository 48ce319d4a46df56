"""Counts added up: per patient and condition, and per place in the tissue against the rest of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.cohort.microenvironment import OTHER
from histoweft.significance import adjust

PLACE_COLUMNS = ("kind", "group", "gene", "effect", "t", "patients", "p", "q", "share")

_MIN_SPOTS = 10
_MIN_COUNTS = 1_000
_PRIOR = 2.0
"""Counts added to each gene before the logarithm, shared out by the depth of the two sides."""


@dataclass
class Sums:
    """Counts of one patient (and condition).

    Attributes
    ----------
    total
        Gene to count.
    groups
        (kind, group) to gene counts, (genes,).
    spots
        (kind, group) to number of barcodes; (kind, "") to those of the kind.
    """

    total: pd.Series
    groups: dict[tuple[str, str], pd.Series] = field(default_factory=dict)
    spots: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        """Take in another section of the same patient."""
        self.total = self.total.add(other.total, fill_value=0.0)
        for key, counts in other.groups.items():
            self.groups[key] = self.groups[key].add(counts, fill_value=0.0) if key in self.groups else counts
        for key, n in other.spots.items():
            self.spots[key] = self.spots.get(key, 0) + n


def add_up(chunks: Iterable[tuple[slice, sp.csr_matrix]], genes: pd.Index, groupings: Mapping[str, pd.Series]) -> Sums:
    """Add the counts of a section up, in one pass.

    Parameters
    ----------
    chunks
        Rows' slice and counts, barcodes x genes (`io.CountsFile.chunks`).
    genes
        Names of the columns; a name that stands twice is added up.
    groupings
        Kind (niche, domain, type, state) to the group of each barcode; missing values are in no group.
    """
    keys, blocks, spots = [], [], {}
    for kind, labels in groupings.items():
        codes, names = pd.factorize(labels, sort=True)
        keys += [(kind, str(name)) for name in names]
        blocks.append((codes, len(names)))
        spots[(kind, "")] = int((codes >= 0).sum())
        spots |= {(kind, str(name)): int((codes == code).sum()) for code, name in enumerate(names)}
    sums, total = np.zeros((len(keys), len(genes))), np.zeros(len(genes))
    for where, chunk in chunks:
        total += np.asarray(chunk.sum(axis=0)).ravel()
        if blocks:
            sums += (indicator(blocks, where).T @ chunk).toarray()
    groups = {key: _by_gene(pd.Series(row, index=genes)) for key, row in zip(keys, sums)}
    return Sums(_by_gene(pd.Series(total, index=genes)), groups, spots)


def _by_gene(values: pd.Series) -> pd.Series:
    return values if values.index.is_unique else values.groupby(level=0).sum()


def indicator(blocks: list[tuple[np.ndarray, int]], where: slice) -> sp.csr_matrix:
    """Return barcodes of a slice x all groups, one where a barcode belongs to a group."""
    parts = []
    for codes, n in blocks:
        part = codes[where]
        rows = np.flatnonzero(part >= 0)
        parts.append(sp.csr_matrix((np.ones(len(rows)), (rows, part[rows])), shape=(len(part), n)))
    return sp.hstack(parts, format="csr")


def log_cpm(counts: pd.DataFrame) -> pd.DataFrame:
    """Return log2(1 + counts per million) of rows x genes, float32."""
    total = counts.sum(axis=1)
    scaled = counts.mul(1e6 / total.where(total > 0), axis=0).fillna(0.0)
    return np.log2(1 + scaled).astype(np.float32)


class Places:
    """Gathers over patients how much more a gene is expressed in a group of barcodes than in the others.

    Patients are taken in one by one and only running sums are kept: memory does not grow with the number of patients.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], pd.DataFrame] = {}
        self._shares: dict[tuple[str, str], list[float]] = {}

    def add(self, patient: Sums) -> None:
        """Take in the counts of all sections of a patient."""
        for (kind, group), inside in patient.groups.items():
            of_kind = [counts for (other, _), counts in patient.groups.items() if other == kind]
            n, of_all = patient.spots[(kind, group)], patient.spots[(kind, "")]
            if min(n, of_all - n) < _MIN_SPOTS:
                continue
            difference = log_ratio(inside, pd.concat(of_kind, axis=1).sum(axis=1) - inside)
            if difference is not None:
                self.add_difference(kind, group, difference, n / of_all)

    def add_difference(self, kind: str, group: str, difference: pd.Series, share: float = np.nan) -> None:
        """Take in one patient's difference per gene (or pair) between a group and the other barcodes."""
        difference = difference.dropna()
        one = pd.DataFrame({"n": 1.0, "sum": difference, "squares": difference**2})
        key = (kind, group)
        self._sums[key] = self._sums[key].add(one, fill_value=0.0) if key in self._sums else one
        self._shares.setdefault(key, []).append(share)

    def table(self) -> pd.DataFrame:
        """Return `PLACE_COLUMNS`.

        Per kind, group and gene: effect (mean over patients of log2 of the expression in the group over that of the
        other barcodes), t over patients, number of patients, p (two-sided, Student), q (within the group), and the
        group's mean share of the barcodes. t, p and q are NaN below three patients.
        """
        parts = [self._one(key, sums) for key, sums in self._sums.items()]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(PLACE_COLUMNS))

    def _one(self, key: tuple[str, str], sums: pd.DataFrame) -> pd.DataFrame:
        t, p = t_over_patients(*(sums[c].to_numpy() for c in ("n", "sum", "squares")))
        return pd.DataFrame(
            {
                "kind": key[0], "group": key[1], "gene": sums.index.astype(str),
                "effect": (sums["sum"] / sums["n"]).to_numpy(), "t": t, "patients": sums["n"].to_numpy(dtype=int),
                "p": p, "q": adjust(p), "share": float(np.mean(self._shares[key])),
            }
        )  # fmt: skip


def log_ratio(inside: pd.Series, outside: pd.Series) -> pd.Series | None:
    """Return log2 of a gene's share of the counts inside over outside; None with too few counts on a side.

    Both sides get the same prior share of a gene's counts, in proportion to their depth, so that a gene without counts
    on one side does not look infinitely specific.
    """
    n_in, n_out = float(inside.sum()), float(outside.sum())
    if min(n_in, n_out) < _MIN_COUNTS:
        return None
    mean = (n_in + n_out) / 2
    return np.log2((inside + _PRIOR * n_in / mean) / n_in) - np.log2((outside + _PRIOR * n_out / mean) / n_out)


def t_over_patients(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Student's t of a mean against nought and its two-sided p, from running sums; NaN below three patients.

    The variance of each gene is drawn towards the typical one with the weight of two patients: with few patients a gene
    is else significant because its values happen to agree.
    """
    from scipy.stats import t as student

    enough = n >= 3
    n_safe = np.where(enough, n, np.nan)
    mean = total / n_safe
    variance = np.maximum(squares / n_safe - mean**2, 0) * n_safe / (n_safe - 1)
    typical = np.nanmedian(variance) if np.isfinite(variance).any() else np.nan
    drawn = ((n_safe - 1) * variance + 2 * typical) / (n_safe + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = mean / np.sqrt(drawn / n_safe)
    return t, 2 * student.sf(np.abs(t), n_safe - 1)


def groupings(tables: Mapping[str, pd.DataFrame], barcodes: pd.Index) -> dict[str, pd.Series]:
    """Return what barcodes are grouped by, from the tables there are: niche, domain, type, persister.

    Parameters
    ----------
    tables
        Barcode-indexed: niches, domains, annotation, states.
    barcodes
        Order wanted.
    """
    found = {}
    for name, column in (("niches", "niche"), ("domains", "domain")):
        if name in tables:
            found[column] = tables[name][column].reindex(barcodes).astype(object)
    if "annotation" in tables:
        label = tables["annotation"]["label"].astype(object).reindex(barcodes)
        found["type"] = label.where(label != "unknown")
    if "states" in tables and "persister" in tables["states"]:
        persister = tables["states"]["persister"].reindex(barcodes).fillna(False).astype(bool)
        found["state"] = pd.Series(np.where(persister, "persister", OTHER), index=barcodes, dtype=object)
    return found


def matrix(sums: Mapping[str, Sums]) -> pd.DataFrame:
    """Return rows x genes that all of them have; counts."""
    return pd.DataFrame({name: one.total for name, one in sums.items()}).dropna().T
