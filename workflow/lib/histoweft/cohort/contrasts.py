"""Two groups of patients compared: effect sizes, and p-values from dealing the groups to patients anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from math import comb, prod

import numpy as np
import pandas as pd

from histoweft.significance import LEVEL, MOST_ARRANGEMENTS, adjust, all_signs, design, smallest_dealt

COLUMNS = (
    "feature", "effect", "low", "high", "standardised", "n_first", "n_second", "paired", "p", "q", "smallest_p",
)  # fmt: skip


@dataclass(frozen=True)
class Groups:
    """Who is compared with whom.

    Attributes
    ----------
    first, second
        What the groups are called; effects are first minus second.
    label
        1 for the first, 0 for the second, NaN for neither; index: rows of the features.
    patient, stratum
        Of each row. Groups are dealt inside a stratum (the cohort).
    """

    first: str
    second: str
    label: pd.Series
    patient: pd.Series
    stratum: pd.Series

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Return rows (of the first, of the second group) of each patient that is in both."""
        firsts = {p: i for i, (p, y) in enumerate(zip(self.patient, self.label)) if y == 1}
        seconds = {p: i for i, (p, y) in enumerate(zip(self.patient, self.label)) if y == 0}
        return [(firsts[p], seconds[p]) for p in firsts if p in seconds]

    @property
    def alone(self) -> Groups:
        """Return the groups without the patients that are in both."""
        both = {self.patient.iloc[first] for first, _ in self.pairs}
        return replace(self, label=self.label.mask(self.patient.isin(both))) if both else self

    @property
    def apart(self) -> Groups:
        """Return whom an unpaired comparison is of: `alone`, or everybody where that leaves a group empty."""
        return self.alone if min(self.alone.sizes) else self

    @property
    def strata(self) -> list[tuple[int, int]]:
        """Return how many patients of the first and of the second group each stratum has."""
        known = self.label.notna().to_numpy()
        parts = self.label[known].groupby(self.stratum[known].to_numpy(), sort=False)
        return [(int(part.sum()), int((1 - part).sum())) for _, part in parts]

    @property
    def design(self) -> tuple[bool, float]:
        """Return whether patients are compared with themselves, and the smallest p there could be.

        See `significance.design`; inside several strata there are fewer ways to deal the groups.
        """
        alone = self.alone
        paired, smallest = design(len(self.pairs), *alone.sizes)
        if len(alone.strata) < 2:
            return paired, smallest
        turned, dealt = design(len(self.pairs), 0, 0), smallest_dealt(alone.strata)
        return turned if turned[0] and turned[1] <= dealt else (False, dealt)

    @property
    def sizes(self) -> tuple[int, int]:
        """Return how many patients are in each group."""
        return int((self.label == 1).sum()), int((self.label == 0).sum())


def arrangements(groups: Groups, seed: int = 0) -> tuple[np.ndarray, bool, float]:
    """List the ways in which the groups could have been dealt.

    Parameters
    ----------
    groups
        Patients in both groups are compared with themselves, or the others between the groups; see `Groups.design`.
    seed
        Of the draw, where there are more ways than `MOST_ARRANGEMENTS`.

    Returns
    -------
    weights
        (arrangements, rows); the product with a feature is the difference of the groups' means, or the mean difference
        inside patients. The first is the one seen.
    paired
        Whether patients are compared with themselves.
    smallest
        The smallest two-sided p that so few patients can give.
    """
    paired, smallest = groups.design
    if paired:
        return _turned(groups.pairs, len(groups.label), seed), True, smallest
    return _dealt(groups.apart, seed), False, smallest


def _turned(pairs: list[tuple[int, int]], n_rows: int, seed: int) -> np.ndarray:
    """Turn the sign of each patient's difference in all ways, or in random ones."""
    n = len(pairs)
    signs = all_signs(n, seed, most=MOST_ARRANGEMENTS)
    weights = np.zeros((len(signs), n_rows))
    rows = np.array(pairs)
    weights[:, rows[:, 0]], weights[:, rows[:, 1]] = signs / n, -signs / n
    return weights


def _dealt(groups: Groups, seed: int) -> np.ndarray:
    """Deal the first group to the patients of each stratum in all ways, or in random ones."""
    label = groups.label.to_numpy(dtype=float)
    strata = [np.flatnonzero((groups.stratum == s).to_numpy() & np.isfinite(label)) for s in groups.stratum.unique()]
    strata = [rows for rows in strata if len(rows)]
    taken = [int(label[rows].sum()) for rows in strata]
    ways = prod(comb(len(rows), k) for rows, k in zip(strata, taken))
    rng = np.random.default_rng(seed)
    if len(strata) == 1 and ways <= MOST_ARRANGEMENTS:
        chosen = _all_choices(len(label), strata[0], taken[0], label)
    else:
        # Where there are few ways, each is drawn often enough.
        chosen = np.zeros((min(MOST_ARRANGEMENTS, 50 * ways), len(label)), dtype=bool)
        for rows, k in zip(strata, taken):
            order = rng.random((len(chosen), len(rows))).argsort(axis=1)
            np.put_along_axis(chosen, rows[order[:, :k]], True, axis=1)
        chosen[0] = label == 1
    known = np.isfinite(label)
    first, second = chosen, ~chosen & known
    weights = first / np.maximum(first.sum(axis=1, keepdims=True), 1)
    return weights - second / np.maximum(second.sum(axis=1, keepdims=True), 1)


def _all_choices(n_rows: int, rows: np.ndarray, k: int, label: np.ndarray) -> np.ndarray:
    chosen = np.zeros((comb(len(rows), k), n_rows), dtype=bool)
    ways = np.array(list(combinations(range(len(rows)), k)), dtype=int).reshape(-1, k)
    np.put_along_axis(chosen, rows[ways], True, axis=1)
    seen = int(np.flatnonzero((chosen == (label == 1)).all(axis=1))[0])
    chosen[[0, seen]] = chosen[[seen, 0]]
    return chosen


def compare(features: pd.DataFrame, groups: Groups, seed: int = 0) -> pd.DataFrame:
    """Compare features between two groups of patients.

    Parameters
    ----------
    features
        rows x features; a missing value takes the mean of its column, which favours neither group.
    groups
        Of the same rows.
    seed
        See `arrangements`.

    Returns
    -------
    `COLUMNS`, by p: the Hodges-Lehmann shift (median of all differences between the groups, or of the Walsh averages of
    the patients' own differences) with its 95 % interval, the difference in standard deviations, numbers of patients, p
    (two-sided, share of arrangements with at least this difference of means), q (Benjamini and Hochberg) and the
    smallest p there could be. p is NaN where even that is above 0.05.

    References
    ----------
    Hodges and Lehmann 1963, Ann Math Stat 34:598; Fisher 1935, The design of experiments.
    """
    features = features.dropna(axis=1, how="all")
    if not (features.shape[1] and min(groups.sizes)):
        return pd.DataFrame(columns=list(COLUMNS))
    weights, paired, smallest = arrangements(groups, seed)
    groups = groups if paired else groups.apart
    label = groups.label.to_numpy(dtype=float)
    pairs = np.array(groups.pairs, dtype=int).reshape(-1, 2)
    values = features.to_numpy(dtype=np.float64)
    used = pairs.ravel() if paired else np.flatnonzero(np.isfinite(label))
    values = np.where(np.isfinite(values), values, np.nanmean(values, axis=0))
    if not paired:
        values = _less_strata(values, groups, used)
    spread = np.maximum(values[used].std(axis=0), 1e-12)
    drawn = np.abs(weights @ (values / spread))
    p = (drawn >= drawn[0] - 1e-9).mean(axis=0)
    n_first, n_second = (len(pairs), len(pairs)) if paired else groups.sizes
    first, second = (pairs[:, 0], pairs[:, 1]) if paired else (label == 1, label == 0)
    rows = []
    for at, name in enumerate(features.columns):
        a, b = values[first, at], values[second, at]
        effect, low, high = hodges_lehmann(a, b, a - b if paired else None)
        rows.append((name, effect, low, high, _standardised(a, b), n_first, n_second, paired))
    table = pd.DataFrame(rows, columns=list(COLUMNS[:8]))
    table["p"] = p if smallest <= LEVEL else np.nan
    table["q"] = adjust(table["p"].to_numpy())
    table["smallest_p"] = smallest
    order = table["p"].fillna(2.0) - 1e-6 * table["standardised"].abs().clip(upper=10)
    return table.loc[order.sort_values(kind="stable").index].reset_index(drop=True)


def _less_strata(values: np.ndarray, groups: Groups, used: np.ndarray) -> np.ndarray:
    """Subtract the mean of each stratum: what cohorts differ by must not speak for the groups."""
    stratum = groups.stratum.to_numpy()
    centred = values.copy()
    for name in np.unique(stratum[used]):
        rows = stratum == name
        centred[rows] -= centred[np.intersect1d(np.flatnonzero(rows), used)].mean(axis=0)
    return centred


def _standardised(a: np.ndarray, b: np.ndarray) -> float:
    """Return the difference of means over the pooled standard deviation of patients (Cohen's d)."""
    freedom = len(a) + len(b) - 2
    spread = np.sqrt((((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / freedom) if freedom > 0 else 0.0
    return float((a.mean() - b.mean()) / spread) if spread > 1e-12 else np.nan


def hodges_lehmann(a: np.ndarray, b: np.ndarray, differences: np.ndarray | None = None) -> tuple[float, float, float]:
    """Estimate the shift between two samples, with a 95 % interval by order statistics (Hollander and Wolfe 1999).

    Parameters
    ----------
    a, b
        The samples.
    differences
        Of pairs; the one-sample estimate of them when given.

    Returns
    -------
    shift, low, high; the interval is NaN where the samples are too small for one.
    """
    if differences is not None:
        n = len(differences)
        sums = np.add.outer(differences, differences) / 2
        all_gaps = np.sort(sums[np.triu_indices(n)])
        centre, spread = n * (n + 1) / 4, np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    else:
        m, n = len(a), len(b)
        all_gaps = np.sort(np.subtract.outer(a, b).ravel())
        centre, spread = m * n / 2, np.sqrt(m * n * (m + n + 1) / 12)
    shift = float(np.median(all_gaps))
    cut = int(np.floor(centre - 1.959964 * spread))
    if cut < 1:
        return shift, np.nan, np.nan
    return shift, float(all_gaps[cut - 1]), float(all_gaps[len(all_gaps) - cut])


def advice(groups: Groups) -> str:
    """Say what is missing for a test at the level of 0.05; empty when nothing is."""
    paired, smallest = groups.design
    if smallest <= LEVEL:
        return ""
    if paired:
        return (
            f"{len(groups.pairs)} patients with both {groups.first} and {groups.second}: no test is possible (the "
            f"smallest p would be {smallest:.2g}). Six or more such patients are needed."
        )
    first, second = groups.sizes
    return (
        f"{first} patients {groups.first} and {second} {groups.second}: no test is possible. Four or more of each are "
        "needed, and dozens to find anything but a very large difference."
    )
