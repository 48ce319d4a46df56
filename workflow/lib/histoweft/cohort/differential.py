"""Genes that differ between two groups of patients: counts by PyDESeq2, log values by moderated t over cohorts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from histoweft.cohort.contrasts import Groups
from histoweft.significance import adjust

COLUMNS = ("gene", "effect", "low", "high", "p", "q", "cohorts", "heterogeneity", "method")

FEWEST = 3
"""Patients of each group below which no p is given."""

_MIN_MEAN_COUNT = 1.0


def log_values(expression: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    """Compare log expression inside each cohort, and put the cohorts together.

    Parameters
    ----------
    expression
        rows x genes, log2.
    groups
        Of the same rows.

    Returns
    -------
    `COLUMNS`, in the order of the genes: effect (log2 fold change, first over second), its 95 % interval, p, q, number
    of cohorts, and the share of variation that is between cohorts (I squared). p is NaN where no cohort has three
    patients of each group.

    References
    ----------
    Smyth 2004, Stat Appl Genet Mol Biol 3:3 (variances drawn together over genes); DerSimonian and Laird 1986, Control
    Clin Trials 7:177 (cohorts combined by random effects).
    """
    estimates = []
    label = groups.label.to_numpy(dtype=float)
    for stratum in groups.stratum.unique():
        rows = (groups.stratum == stratum).to_numpy() & np.isfinite(label)
        sizes = [(label[rows] == answer).sum() for answer in (1, 0)]
        if min(sizes) >= 1:
            estimates.append((min(sizes), *moderated(expression.to_numpy(dtype=np.float64)[rows], label[rows])))
    tested = [parts[1:] for parts in estimates if parts[0] >= FEWEST]
    method = "moderated t" if len(tested) == 1 else "moderated t, random effects over cohorts"
    if not tested:
        weights = np.array([parts[0] for parts in estimates], dtype=float)
        effect = np.average([parts[1] for parts in estimates], axis=0, weights=weights)
        gaps = np.full(len(effect), np.nan)
        return _table(expression.columns, effect, gaps, gaps, gaps, len(estimates), gaps, "difference of means")
    if len(tested) == 1:
        effect, error, freedom = tested[0]
        p, reach = _student(effect / error, freedom)
        return _table(
            expression.columns, effect, effect - reach * error, effect + reach * error, p, 1, np.nan * effect, method
        )
    effects = np.array([parts[0] for parts in tested])
    # A cohort's t is turned into the normal deviate of equal p, so that small cohorts do not count as certain.
    errors = np.array([normal_error(*parts) for parts in tested])
    effect, error, heterogeneity = random_effects(effects, errors)
    p, reach = _student(effect / error, np.inf)
    low, high = effect - reach * error, effect + reach * error
    return _table(expression.columns, effect, low, high, p, len(tested), heterogeneity, method)


def moderated(values: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return difference of means, its standard error with moderated variance, and degrees of freedom.

    Parameters
    ----------
    values
        (patients, genes), log2.
    label
        1 or 0.
    """
    a, b = values[label == 1], values[label == 0]
    effect = a.mean(axis=0) - b.mean(axis=0)
    freedom = len(values) - 2
    factor = np.sqrt(1 / len(a) + 1 / len(b))
    if freedom < 1:
        return effect, np.full(len(effect), np.nan), np.nan
    variance = (((a - a.mean(axis=0)) ** 2).sum(axis=0) + ((b - b.mean(axis=0)) ** 2).sum(axis=0)) / freedom
    prior_freedom, prior = variance_prior(variance, freedom)
    if np.isinf(prior_freedom):
        return effect, np.full(len(effect), np.sqrt(prior) * factor), np.inf
    drawn = (prior_freedom * prior + freedom * variance) / (prior_freedom + freedom)
    return effect, np.sqrt(np.maximum(drawn, 1e-12)) * factor, freedom + prior_freedom


def variance_prior(variance: np.ndarray, freedom: float) -> tuple[float, float]:
    """Fit the scaled inverse chi-squared distribution that variances are drawn from (Smyth 2004, section 6.2).

    Returns
    -------
    prior degrees of freedom (infinite where the variances differ no more than chance makes them), prior variance.
    """
    from scipy.special import digamma, polygamma

    positive = variance[variance > 1e-12]
    if len(positive) < 3:
        return 0.0, float(np.mean(variance)) if len(variance) else 1.0
    e = np.log(positive) - digamma(freedom / 2) + np.log(freedom / 2)
    excess = e.var(ddof=1) - polygamma(1, freedom / 2)
    if excess <= 0:
        return np.inf, float(np.exp(e.mean()))
    half = _inverse_trigamma(excess)
    return 2 * half, float(np.exp(e.mean() + digamma(half) - np.log(half)))


def _inverse_trigamma(x: float) -> float:
    from scipy.special import polygamma

    y = 0.5 + 1 / x
    for _ in range(50):
        step = polygamma(1, y) * (1 - polygamma(1, y) / x) / polygamma(2, y)
        y += step
        if abs(step) < 1e-8 * y:
            break
    return float(y)


def normal_error(effect: np.ndarray, error: np.ndarray, freedom: float) -> np.ndarray:
    """Widen a standard error such that effect / error has the normal p of its Student's t."""
    from scipy.stats import norm, t

    if np.isinf(freedom):
        return error
    deviate = norm.isf(np.maximum(t.sf(np.abs(effect) / error, freedom), 1e-300))
    small = np.abs(effect) < 1e-9
    limit = error * t.isf(0.025, freedom) / norm.isf(0.025)
    return np.where(small, limit, np.abs(effect) / np.maximum(deviate, 1e-12))


def random_effects(effects: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Combine cohorts by the method of DerSimonian and Laird.

    Parameters
    ----------
    effects, errors
        (cohorts, genes).

    Returns
    -------
    effect, standard error, I squared (0 to 1); (genes,).
    """
    weight = 1 / errors**2
    fixed = (weight * effects).sum(axis=0) / weight.sum(axis=0)
    scatter = (weight * (effects - fixed) ** 2).sum(axis=0)
    spare = len(effects) - 1
    scale = weight.sum(axis=0) - (weight**2).sum(axis=0) / weight.sum(axis=0)
    between = np.maximum((scatter - spare) / scale, 0)
    weight = 1 / (errors**2 + between)
    effect = (weight * effects).sum(axis=0) / weight.sum(axis=0)
    heterogeneity = np.maximum(1 - spare / np.maximum(scatter, 1e-12), 0)
    return effect, 1 / np.sqrt(weight.sum(axis=0)), heterogeneity


def _student(t: np.ndarray, freedom: float) -> tuple[np.ndarray, float]:
    from scipy.stats import norm
    from scipy.stats import t as student

    if np.isinf(freedom):
        return 2 * norm.sf(np.abs(t)), float(norm.isf(0.025))
    return 2 * student.sf(np.abs(t), freedom), float(student.isf(0.025, freedom))


def _table(genes: Sequence[str], effect, low, high, p, cohorts: int, heterogeneity, method: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "gene": list(genes), "effect": effect, "low": low, "high": high, "p": p, "q": adjust(p),
            "cohorts": cohorts, "heterogeneity": heterogeneity, "method": method,
        }
    )  # fmt: skip


def counts(table: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    """Compare pseudobulk counts by PyDESeq2 (Love 2014, Genome Biol 15:550; Muzellec 2023, Bioinformatics 39:btad547).

    Parameters
    ----------
    table
        rows x genes, whole numbers.
    groups
        Of the same rows. The cohort is in the design where there are several and both groups occur inside one of them,
        the patient where three or more are in both groups.

    Returns
    -------
    As `log_values`. Genes with a mean count below 1 are left out.
    """
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    known = groups.label.notna().to_numpy()
    paired = len(groups.pairs) >= FEWEST
    if paired:
        both = [groups.patient.iloc[first] for first, _ in groups.pairs]
        known &= groups.patient.isin(both).to_numpy()
    used = table.loc[known, (table[known].mean(axis=0) >= _MIN_MEAN_COUNT).to_numpy()].round().astype(int)
    about = pd.DataFrame({"group": np.where(groups.label[known] == 1, "first", "second")}, index=used.index)
    extra = groups.patient[known] if paired else groups.stratum[known]
    about["block"] = [f"b{code}" for code in pd.factorize(extra)[0]]
    design = "~block + group" if separable(about) else "~group"
    inference = DefaultInference(n_cpus=1)
    data = DeseqDataSet(counts=used, metadata=about, design=design, refit_cooks=True, inference=inference, quiet=True)
    data.deseq2()
    stats = DeseqStats(data, contrast=["group", "first", "second"], inference=inference, quiet=True)
    stats.summary()
    found = stats.results_df
    effect, error = found["log2FoldChange"].to_numpy(), found["lfcSE"].to_numpy()
    p, gaps = found["pvalue"].to_numpy(), np.full(len(found), np.nan)
    cohorts = groups.stratum[known].nunique()
    method = f"PyDESeq2, {design}".replace("block", "patient" if paired else "cohort")
    return _table(used.columns, effect, effect - 1.959964 * error, effect + 1.959964 * error, p, cohorts, gaps, method)


def separable(about: pd.DataFrame) -> bool:
    """Return whether the effects of group and block can be told apart: a block has both groups, and rows are to spare.

    Parameters
    ----------
    about
        Columns group and block.
    """
    blocks = about["block"].nunique()
    return blocks > 1 and bool((about.groupby("block")["group"].nunique() > 1).any()) and len(about) > blocks + 1


def compare(expression: pd.DataFrame, pseudobulk: pd.DataFrame | None, groups: Groups) -> pd.DataFrame:
    """Compare genes by their counts where there are any and enough patients, else by log values."""
    pairs = len(groups.pairs)
    enough = min(groups.sizes) >= FEWEST and (pairs == 0 or pairs >= FEWEST)
    whole = pseudobulk is not None and bool((pseudobulk.to_numpy() % 1 == 0).all())
    if whole and enough:
        return counts(pseudobulk, groups)
    found = log_values(expression, groups)
    if pairs:  # Rows of one patient are no independent observations, and two pairs are too few to compare in pairs.
        found[["low", "high", "p", "q"]] = np.nan
        found["method"] = "difference of means"
    return found
