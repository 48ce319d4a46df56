"""Ligands and receptors between groups of cells, with the permutation distribution in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.significance import adjust, upper_tail
from histoweft.space.ligands import Pairs
from histoweft.space.values import one_hot

SMALL_GROUP = 10
"""Rows with a group of fewer cells are tested by dealing out labels, not by moments."""

COLUMNS = (
    "source", "target", "ligand_complex", "receptor_complex", "ligand", "receptor", "lr_means", "z", "pvals", "q",
    "ligand_means", "receptor_means", "ligand_props", "receptor_props", "test",
)  # fmt: skip

_PAIRS_AT_ONCE = 512
_VALUES_AT_ONCE = 20_000_000


@dataclass(frozen=True)
class Groups:
    """Means and shares of each gene in each group, and the groups' sizes.

    Attributes
    ----------
    mean, share
        groups x genes; mean of the values, share of the cells with a value above zero.
    sizes
        (groups,).
    """

    mean: np.ndarray
    share: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, values: sp.csc_matrix, codes: np.ndarray, n_groups: int) -> Groups:
        """Measure cells x genes; `codes` are the cells' groups, each 0 or more."""
        members = one_hot(codes, n_groups)
        sizes = np.bincount(codes, minlength=n_groups)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.asarray((members.T @ values).todense()) / sizes[:, None]
            share = np.asarray((members.T @ (values > 0)).todense()) / sizes[:, None]
        return cls(np.nan_to_num(mean), np.nan_to_num(share), sizes)

    def weakest(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """Return for each group and name the subunit of lowest mean, and the smallest share of all its subunits.

        Returns
        -------
        subunit
            groups x names, rows of the genes.
        share
            groups x names.
        """
        k = len(self.sizes)
        subunit = np.empty((k, len(pairs.names)), dtype=int)
        share = np.empty((k, len(pairs.names)))
        for at, rows in enumerate(pairs.subunits):
            genes = np.array(rows)
            subunit[:, at] = genes[self.mean[:, genes].argmin(axis=1)]
            share[:, at] = self.share[:, genes].min(axis=1)
        return subunit, share


class JointMoments:
    """Sums over cells of products of two centred genes, up to the third order, for the gene pairs asked for.

    Parameters
    ----------
    values
        cells x genes, sparse.
    pairs
        (m, 2) genes x and y.

    Attributes
    ----------
    mean
        (genes,).
    xx, yy, xy, xxx, yyy, xxy, xyy
        (m,).
    """

    def __init__(self, values: sp.csc_matrix, pairs: np.ndarray):
        values = sp.csc_matrix(values, dtype=np.float64)
        n = values.shape[0]
        power = values.copy()
        sums = [np.asarray(values.sum(axis=0)).ravel()]
        for _ in range(2):
            power.data *= values.data
            sums.append(np.asarray(power.sum(axis=0)).ravel())
        self.mean = m = sums[0] / n
        second = sums[1] - n * m**2
        third = sums[2] - 3 * m * sums[1] + 2 * n * m**3
        x, y = pairs.T
        self.xx, self.yy, self.xxx, self.yyy = second[x], second[y], third[x], third[y]
        xy, xxy, xyy = self._products(values, x, y)
        self.xy = xy - n * m[x] * m[y]
        self.xxy = xxy - 2 * m[x] * xy - m[y] * sums[1][x] + 2 * n * m[x] ** 2 * m[y]
        self.xyy = xyy - 2 * m[y] * xy - m[x] * sums[1][y] + 2 * n * m[y] ** 2 * m[x]

    @staticmethod
    def _products(values: sp.csc_matrix, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = np.zeros((3, len(x)))
        load = np.cumsum(np.diff(values.indptr)[x] + np.diff(values.indptr)[y])
        cuts = np.searchsorted(load, np.arange(_VALUES_AT_ONCE, load[-1] if len(load) else 0, _VALUES_AT_ONCE))
        for part in np.split(np.arange(len(x)), np.unique(cuts)):
            left, right = values[:, x[part]], values[:, y[part]]
            both = left.multiply(right)
            found[0, part] = np.asarray(both.sum(axis=0)).ravel()
            found[1, part] = np.asarray(both.multiply(left).sum(axis=0)).ravel()
            found[2, part] = np.asarray(both.multiply(right).sum(axis=0)).ravel()
        return found[0], found[1], found[2]


def _contrast_sums(sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Sum products of the centred weights u of a source and v of a target over all cells.

    u is 1 / size - 1 / N in the group and -1 / N outside it. By name (uu, uv, ..., vvv) groups x groups arrays.
    """
    size = sizes.astype(float)
    n, k = size.sum(), len(size)
    with np.errstate(divide="ignore"):
        inside = 1 / size - 1 / n
    out = -1 / n
    source, target = np.arange(k)[:, None], np.arange(k)[None]
    same = source == target
    sums = {}
    for name in ("uu", "uv", "vv", "uuu", "uuv", "uvv", "vvv"):
        a, b = name.count("u"), name.count("v")
        # Cells of the source, of the target, and of neither, where the groups differ; of the one group, and others.
        apart = (
            size[source] * inside[source] ** a * out**b
            + size[target] * out**a * inside[target] ** b
            + (n - size[source] - size[target]) * out ** (a + b)
        )
        one = size[source] * inside[source] ** (a + b) + (n - size[source]) * out ** (a + b)
        sums[name] = np.where(same, one, apart)
    return sums


def score(
    values: sp.csc_matrix,
    labels: pd.Categorical,
    pairs: Pairs,
    genes: pd.Index,
    min_share: float = 0.1,
    draws: int = 1_000,
    seed: int = 0,
    small: int = SMALL_GROUP,
) -> pd.DataFrame:
    """Score every ligand-receptor pair between every two groups.

    Parameters
    ----------
    values
        cells x (the genes of `pairs`), log-normalised.
    labels
        Group of each cell; cells without one are left out.
    pairs
        Ligands and receptors.
    genes
        Symbols of the columns of `values`.
    min_share
        Rows where the ligand's share of cells in the source, or the receptor's in the target, is smaller are left
        out; of a complex, the subunit found in the fewest cells decides.
    draws
        Random labellings for rows with a group of fewer than `small` cells.
    seed
        Of the draws.

    Returns
    -------
    `COLUMNS`, by q and then falling z: lr_means is the mean of the ligand's mean in the source and the receptor's in
    the target; ligand and receptor name the subunit of lowest mean, which stands for its complex; pvals is the chance
    of at least this mean when labels are dealt out at random (one-sided); q after Benjamini and Hochberg over all
    rows; props are shares of cells.

    Notes
    -----
    The statistic of CellPhoneDB (Efremova et al. 2020, Nature Protocols 15:1484) with complexes as LIANA has them. Its
    distribution over all relabellings: the two means are T = sum_i u_i x_p(i) + v_i y_p(i) for a random permutation
    p, a statistic whose first three moments Hoeffding 1951 (Annals of Mathematical Statistics 22:558) gives; a
    source that is its own target enters through the products of u and v. The tail is Pearson's type III.
    """
    codes = np.asarray(labels.codes)
    if (codes < 0).any():
        values, codes = values.tocsr()[codes >= 0].tocsc(), codes[codes >= 0]
    names = labels.categories.astype(str)
    groups = Groups.of(values, codes, len(names))
    subunit, share = groups.weakest(pairs)
    rows = _rows(pairs, share, min_share)
    if rows.empty:
        return pd.DataFrame({name: pd.Series(dtype=float) for name in COLUMNS})
    rows["ligand"] = subunit[rows["source"], pairs.ligand[rows["pair"]]]
    rows["receptor"] = subunit[rows["target"], pairs.receptor[rows["pair"]]]
    rows["ligand_means"] = groups.mean[rows["source"], rows["ligand"]]
    rows["receptor_means"] = groups.mean[rows["target"], rows["receptor"]]
    rows["lr_means"] = (rows["ligand_means"] + rows["receptor_means"]) / 2
    rows["z"], rows["pvals"] = _closed_form(values, groups.sizes, rows)
    rows["test"] = "moments"
    few = (groups.sizes[rows["source"]] < small) | (groups.sizes[rows["target"]] < small)
    if few.any():
        rows.loc[few, "pvals"] = _by_dealing(values, codes, len(names), rows[few], draws, seed)
        rows.loc[few, "test"] = "permutation"
    rows["q"] = adjust(rows["pvals"].to_numpy())
    return _named(rows, pairs, names, genes)


def _rows(pairs: Pairs, share: np.ndarray, min_share: float) -> pd.DataFrame:
    """List the pairs and groups in which ligand and receptor are both found: pair, source, target, the two shares."""
    parts = []
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        ligand = share[:, pairs.ligand[start : start + _PAIRS_AT_ONCE]].T
        receptor = share[:, pairs.receptor[start : start + _PAIRS_AT_ONCE]].T
        sends, takes = (ligand >= min_share) & (ligand > 0), (receptor >= min_share) & (receptor > 0)
        pair, source, target = np.nonzero(sends[:, :, None] & takes[:, None, :])
        part = {"pair": pair + start, "source": source, "target": target}
        part |= {"ligand_props": ligand[pair, source], "receptor_props": receptor[pair, target]}
        parts.append(pd.DataFrame(part))
    columns = ("pair", "source", "target", "ligand_props", "receptor_props")
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _closed_form(values: sp.csc_matrix, sizes: np.ndarray, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return z and p of each row from the first three moments over all relabellings."""
    width = values.shape[1]
    keys, of = np.unique(rows["ligand"].to_numpy() * width + rows["receptor"].to_numpy(), return_inverse=True)
    joint = JointMoments(values, np.column_stack([keys // width, keys % width]))
    u = {name: sums[rows["source"], rows["target"]] for name, sums in _contrast_sums(sizes).items()}
    n = int(sizes.sum())
    second = u["uu"] * joint.xx[of] + 2 * u["uv"] * joint.xy[of] + u["vv"] * joint.yy[of]
    third = u["uuu"] * joint.xxx[of] + u["vvv"] * joint.yyy[of]
    third += 3 * (u["uuv"] * joint.xxy[of] + u["uvv"] * joint.xyy[of])
    variance = np.maximum(second, 0) / (n - 1)
    shift = 2 * rows["lr_means"].to_numpy() - joint.mean[rows["ligand"]] - joint.mean[rows["receptor"]]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = shift / np.sqrt(variance)
        skewness = n / ((n - 1) * max(n - 2, 1)) * third / variance**1.5
    return z, upper_tail(z, np.nan_to_num(skewness))


def _by_dealing(
    values: sp.csc_matrix, codes: np.ndarray, n_groups: int, rows: pd.DataFrame, draws: int, seed: int
) -> np.ndarray:
    """Return the share of random labellings whose means reach those of each row, (1 + hits) / (1 + draws)."""
    genes, at = np.unique(rows[["ligand", "receptor"]].to_numpy(), return_inverse=True)
    ligand, receptor = at.reshape(-1, 2).T
    source, target = rows["source"].to_numpy(), rows["target"].to_numpy()
    kept, seen = values[:, genes].tocsr(), 2 * rows["lr_means"].to_numpy() * (1 - 1e-12)
    sizes = np.bincount(codes, minlength=n_groups)[:, None]
    rng, hits = np.random.default_rng(seed), np.zeros(len(rows))
    for _ in range(draws):
        mean = (one_hot(rng.permutation(codes), n_groups).T @ kept).toarray() / np.maximum(sizes, 1)
        hits += mean[source, ligand] + mean[target, receptor] >= seen
    return (1 + hits) / (1 + draws)


def _named(rows: pd.DataFrame, pairs: Pairs, names: pd.Index, genes: pd.Index) -> pd.DataFrame:
    whole = np.array(pairs.names, dtype=object)
    symbols = np.asarray(genes, dtype=object)

    def category(codes: np.ndarray, words: np.ndarray) -> pd.Categorical:
        return pd.Categorical(words[codes])

    named = rows.assign(
        source=category(rows["source"], np.asarray(names, dtype=object)),
        target=category(rows["target"], np.asarray(names, dtype=object)),
        ligand_complex=category(pairs.ligand[rows["pair"]], whole),
        receptor_complex=category(pairs.receptor[rows["pair"]], whole),
        ligand=category(rows["ligand"], symbols),
        receptor=category(rows["receptor"], symbols),
        test=rows["test"].astype("category"),
    )
    order = np.lexsort((-named["z"].fillna(0).to_numpy(), named["q"].to_numpy()))
    return named.iloc[order].reset_index(drop=True)[list(COLUMNS)]
