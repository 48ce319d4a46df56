"""How well expression is predicted from the image, beside the floors, the bar and the ceiling, on the same folds."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import HistoweftError
from histoweft.floors import Factored
from histoweft.histology.panels import Panel
from histoweft.metrics import metric_row, percentile_interval
from histoweft.splits import partition

PRIMARY = "pearson_top50"
"""The metric that decides which method becomes the default."""

FLOORS = ("floor:mean", "floor:library_size", "floor:coordinates", "floor:ridge_patch", "floor:ridge_context")
BAR = "bar:ensemble"
CEILING = "ceiling:thinning"
ORACLES = ("floor:library_size",)
"""Floors that are told something of the test spots: shown, to be beaten, but never a default."""

PATCHES = 20

_SCORES = {"pearson": "pearson_{}", "pearson_depth": "pearson_{}_depth", "mse_ratio": "mse_ratio_{}",
           "better": "share_better_{}"}  # fmt: skip
_FLAT = 1e-6
"""Predictions whose spread is below this share of their size are constant up to the rounding of float32."""

_CHUNK = 4_000_000
_ONE_SIDED = 1.6448536269514722
"""The 95 % point of the normal distribution."""


@dataclass(frozen=True)
class HeldOut:
    """The test spots of one fold inside one section, and what each method predicts for them.

    Attributes
    ----------
    sample, fold
        Section and fold. A fold of several sections is one `HeldOut` for each: correlations are never pooled.
    truth
        spots x genes, log-normalised.
    log_total
        Logarithm of each spot's total count, (spots,).
    xy
        Positions, spots x dimensions, um.
    train_mean
        Mean of each gene over the training spots, (genes,).
    panels
        Chosen on the training spots; the first decides (`PRIMARY`).
    predictions
        Method to prediction of spots x genes.
    ceiling
        Of each gene, (genes,); see `ceiling.thinning_ceiling`. None: not known.
    """

    sample: str
    fold: str
    truth: sp.csr_matrix
    log_total: np.ndarray
    xy: np.ndarray
    train_mean: np.ndarray
    panels: Sequence[Panel]
    predictions: Mapping[str, Factored]
    ceiling: np.ndarray | None = None


@dataclass(frozen=True)
class FoldScores:
    """Scores of one `HeldOut`.

    Attributes
    ----------
    sample, fold
        Of what was held out.
    n
        Number of test spots.
    panels
        Of the fold.
    tables
        Method to a table as of `gene_scores`; the ceiling's has the column ``pearson`` only.
    replicates
        Method to the mean Pearson over the first panel, observed and in each bootstrap of patches; see
        `patch_replicates`.
    """

    sample: str
    fold: str
    n: int
    panels: Sequence[Panel]
    tables: Mapping[str, pd.DataFrame]
    replicates: Mapping[str, np.ndarray]


def gene_scores(
    truth: sp.csr_matrix,
    prediction: Factored,
    log_total: np.ndarray,
    genes: np.ndarray,
    train_mean: np.ndarray,
) -> pd.DataFrame:
    """Score each gene over the test spots of one section or block.

    Parameters
    ----------
    truth
        spots x all genes, log-normalised.
    prediction
        Of the same spots and genes.
    log_total
        Logarithm of each spot's total count, (spots,).
    genes
        Column numbers wanted.
    train_mean
        Mean of every gene over the training spots, (all genes,).

    Returns
    -------
    pandas.DataFrame
        Index: the column numbers. ``pearson``; ``pearson_depth``, the same after both sides were regressed on
        `log_total` (partial correlation); ``mse``, ``mse_mean`` (of the training mean) and ``mse_ratio`` of the two;
        ``better``, 1 where Pearson is above what permuting the spots gives in 95 % of all cases. A gene that is
        constant in these spots is NaN throughout. A prediction that is constant has a Pearson of 0 by definition: it
        orders the spots no better than chance.

    Notes
    -----
    Over all permutations of n spots, Pearson's r has mean 0 and variance 1 / (n - 1) exactly (Pitman 1937); its
    distribution is taken as normal. Permuting takes spots for exchangeable; neighbours are not, so ``better`` is
    generous to any smooth prediction, the floors' included.
    """
    n = truth.shape[0]
    if truth.shape != prediction.shape or len(log_total) != n:
        raise ValueError(f"truth {truth.shape}, prediction {prediction.shape}, {len(log_total)} totals do not match")
    if n < 3:
        raise HistoweftError(f"{n} test spots in one section or block cannot be correlated: at least 3 are needed")
    by_gene = sp.csc_matrix(truth)
    width = max(1, _CHUNK // n)
    parts = [
        _scores_of(
            by_gene[:, chunk].toarray().astype(np.float64),
            prediction.genes(chunk).astype(np.float64),
            np.asarray(log_total, dtype=np.float64),
            train_mean[chunk],
        )
        for chunk in (genes[start : start + width] for start in range(0, len(genes), width))
    ]
    columns = ("pearson", "pearson_depth", "mse", "mse_mean", "mse_ratio", "better")
    values = np.hstack(parts) if parts else np.zeros((len(columns), 0))
    return pd.DataFrame(dict(zip(columns, values)), index=pd.Index(genes, name="gene"))


def _scores_of(truth: np.ndarray, predicted: np.ndarray, log_total: np.ndarray, train_mean: np.ndarray) -> np.ndarray:
    """Scores x genes, in the order of the columns of `gene_scores`."""
    mse = ((truth - predicted) ** 2).mean(axis=0)
    mse_mean = ((truth - train_mean) ** 2).mean(axis=0)
    y, y_flat = _unit(truth)
    x, x_flat = _unit(predicted)
    t = _unit(log_total[:, None])[0][:, 0]
    r = np.where(x_flat, 0.0, (x * y).sum(axis=0))
    r_xt, r_yt = t @ x, t @ y
    left_over = (1 - r_xt**2) * (1 - r_yt**2)
    explained = x_flat | (1 - r_xt**2 <= _FLAT) | (1 - r_yt**2 <= _FLAT)
    depth = np.where(explained, 0.0, (r - r_xt * r_yt) / np.sqrt(np.where(explained, 1.0, left_over)))
    better = (r > _ONE_SIDED / math.sqrt(len(truth) - 1)).astype(float)
    ratio = np.divide(mse, mse_mean, out=np.full(len(mse), np.nan), where=mse_mean > 0)
    found = np.stack([r, depth, mse, mse_mean, ratio, better])
    found[:, y_flat] = np.nan
    return found


def _unit(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre columns and scale them to length 1; constant ones become 0, and are named."""
    mean = values.mean(axis=0)
    centred = values - mean
    length = np.sqrt((centred**2).sum(axis=0))
    flat = length <= _FLAT * np.maximum(np.abs(mean), 1e-3) * math.sqrt(len(values))
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, length)), flat


def patch_replicates(
    truth: sp.csr_matrix,
    prediction: Factored,
    genes: np.ndarray,
    patches: np.ndarray,
    n_boot: int = 500,
    seed: int | Sequence[int] = 0,
) -> np.ndarray:
    """Compute the mean Pearson over genes, as observed and with patches of spots drawn with replacement.

    Parameters
    ----------
    truth, prediction
        spots x all genes.
    genes
        Column numbers to average over.
    patches
        Patch of each spot, 0, 1, ...; see `splits.partition`.
    n_boot
        Number of draws.
    seed
        Of the draws: the same seed draws the same patches, which is what pairs two methods.

    Returns
    -------
    numpy.ndarray
        (1 + `n_boot`,), the observed one first. Genes constant in a draw are left out of it; constant predictions
        count as 0.

    Notes
    -----
    Whole patches are drawn because neighbouring spots are alike: drawing single spots would give intervals that are
    too narrow (the block bootstrap; Künsch 1989, Lahiri 2003). Pearson of a draw needs only the draw's weighted
    moments, and these are sums over patches, so no spot is ever copied.
    """
    n_patches = int(patches.max()) + 1
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n_patches, np.full(n_patches, 1 / n_patches), size=n_boot)
    weights = np.vstack([np.ones((1, n_patches)), draws])
    one_hot = sp.csr_matrix((np.ones(len(patches)), (patches, np.arange(len(patches)))))
    n = weights @ np.bincount(patches, minlength=n_patches)
    by_gene = sp.csc_matrix(truth)
    total, counted = np.zeros(len(weights)), np.zeros(len(weights))
    width = max(1, _CHUNK // max(len(patches), len(weights)))
    for start in range(0, len(genes), width):
        chunk = genes[start : start + width]
        y, y_scale = _centred(by_gene[:, chunk].toarray().astype(np.float64))
        x, x_scale = _centred(prediction.genes(chunk).astype(np.float64))
        r = _weighted_pearson(weights, n[:, None], one_hot, x, y, x_scale, y_scale)
        total += np.nansum(r, axis=1)
        counted += np.isfinite(r).sum(axis=1)
    return np.divide(total, counted, out=np.full(len(total), np.nan), where=counted > 0)


def _centred(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns around their mean, and the variance below which each counts as constant."""
    mean = values.mean(axis=0)
    return values - mean, (_FLAT * np.maximum(np.abs(mean), 1e-3)) ** 2


def _weighted_pearson(
    weights: np.ndarray,
    n: np.ndarray,
    one_hot: sp.csr_matrix,
    x: np.ndarray,
    y: np.ndarray,
    x_flat: np.ndarray,
    y_flat: np.ndarray,
) -> np.ndarray:
    def mean(values: np.ndarray) -> np.ndarray:
        return weights @ (one_hot @ values) / n

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    ordered = (variance_x > x_flat) & (variance_y > y_flat)
    spread = np.sqrt(np.where(ordered, variance_x * variance_y, 1.0))
    r = np.where(ordered, (mean(x * y) - mean_x * mean_y) / spread, 0.0)
    return np.where(variance_y > y_flat, r, np.nan)


def score_fold(held_out: HeldOut, n_boot: int = 500, seed: int = 0) -> FoldScores:
    """Score every method on the test spots of one fold inside one section.

    Parameters
    ----------
    held_out
        Truth and predictions.
    n_boot
        Bootstrap draws of patches, `PATCHES` of them (fewer in a fold of few spots, so that each holds at least five).
    seed
        Of these draws.

    Returns
    -------
    FoldScores
        Small: the predictions can be let go of.
    """
    genes = np.unique(np.concatenate([panel.genes for panel in held_out.panels]))
    n = held_out.truth.shape[0]
    patches = partition(held_out.xy, int(np.clip(n // 5, 1, PATCHES)))
    # The same draws for all methods of a fold, others in each fold.
    seeds = (seed, zlib.crc32(f"{held_out.sample}/{held_out.fold}".encode()))
    truth, primary = sp.csc_matrix(held_out.truth), held_out.panels[0].genes
    tables, replicates = {}, {}
    for method, prediction in held_out.predictions.items():
        tables[method] = gene_scores(truth, prediction, held_out.log_total, genes, held_out.train_mean)
        replicates[method] = patch_replicates(truth, prediction, primary, patches, n_boot, seeds)
    if held_out.ceiling is not None:
        tables[CEILING] = pd.DataFrame({"pearson": held_out.ceiling[genes]}, index=pd.Index(genes, name="gene"))
    return FoldScores(held_out.sample, held_out.fold, n, held_out.panels, tables, replicates)


def summarise(
    folds: Sequence[FoldScores],
    study: str,
    protocol: str,
    notes: Mapping[str, str] | None = None,
    n_boot: int = 500,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Average the genes of each panel, and the folds.

    Parameters
    ----------
    folds
        All of one protocol.
    study, protocol
        Of the metrics table.
    notes
        Method to what a reader needs to know: ``default``, an oracle.
    n_boot
        Bootstrap draws.
    seed
        Of the draws.

    Returns
    -------
    list of dict
        Rows of the metrics table: ``pearson_<panel>``, ``pearson_<panel>_depth``, ``mse_ratio_<panel>`` (mean over
        genes of the error as a share of the training mean's) and ``share_better_<panel>``, of each fold in each
        section, of each section (fold ``all``; where it was cut into several folds) and of the study (sample and fold
        ``all``; every fold of a section counts the same). `n`: test spots. Intervals: bootstrap over the panel's
        genes, and for means over folds over the folds as well.

    Raises
    ------
    HistoweftError
        Nothing to score, or the folds were not scored on the same methods and panels.
    """
    _same_methods(folds)
    rng = np.random.default_rng(seed)
    rows = []
    for at, first in enumerate(folds[0].panels):
        genes = np.unique(np.concatenate([fold.panels[at].genes for fold in folds]))
        weights = rng.multinomial(len(genes), np.full(len(genes), 1 / len(genes)), size=n_boot).astype(np.float64)
        groups = _groups(folds)
        draws = {name: rng.multinomial(len(of), np.full(len(of), 1 / len(of)), size=n_boot) for name, of in groups}
        for method in folds[0].tables:
            for column, metric in _SCORES.items():
                if column not in folds[0].tables[method]:
                    continue
                values = np.stack([_on(fold.tables[method][column], fold.panels[at], genes) for fold in folds])
                drawn, observed = _gene_means(values, weights)
                for (sample, fold), of in groups:
                    value, low, high = _mean_interval(observed[of], drawn[:, of], draws[sample, fold])
                    rows.append(metric_row(
                        study, "histology", "expression_from_histology", method, sample, protocol,
                        metric.format(first.name), value, fold=fold, low=low, high=high,
                        n=sum(folds[i].n for i in of), panel=_label([folds[i].panels[at] for i in of]),
                        note=(notes or {}).get(method, ""),
                    ))  # fmt: skip
    return rows


def _same_methods(folds: Sequence[FoldScores]) -> None:
    if not folds:
        raise HistoweftError("no fold was scored: nothing to summarise")
    for fold in folds:
        for what, here, there in (
            ("methods", set(fold.tables), set(folds[0].tables)),
            ("panels", {panel.name for panel in fold.panels}, {panel.name for panel in folds[0].panels}),
        ):
            if here != there:
                raise HistoweftError(
                    f"fold {fold.fold!r} of {fold.sample} was scored on other {what} than fold {folds[0].fold!r} of "
                    f"{folds[0].sample} (only in one of them: {', '.join(sorted(here ^ there))}); score all folds alike"
                )


def _groups(folds: Sequence[FoldScores]) -> list[tuple[tuple[str, str], list[int]]]:
    """List what is averaged: sample and fold of the row, and numbers of the folds in it."""
    groups = [((fold.sample, fold.fold), [i]) for i, fold in enumerate(folds)]
    for sample in dict.fromkeys(fold.sample for fold in folds):
        of = [i for i, fold in enumerate(folds) if fold.sample == sample]
        if len(of) > 1:
            groups.append(((sample, "all"), of))
    return [*groups, (("all", "all"), [*range(len(folds))])]


def _on(scores: pd.Series, panel: Panel, genes: np.ndarray) -> np.ndarray:
    return scores.reindex(panel.genes).reindex(genes).to_numpy(dtype=np.float64)


def _gene_means(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over genes of folds x genes with gaps: in each draw (draws x folds), and as observed (folds,)."""
    there = np.isfinite(values)
    filled = np.where(there, values, 0.0)
    all_weights = np.vstack([np.ones((1, values.shape[1])), weights])
    counted = all_weights @ there.T
    means = np.divide(all_weights @ filled.T, counted, out=np.full(counted.shape, np.nan), where=counted > 0)
    return means[1:], means[0]


def _mean_interval(observed: np.ndarray, drawn: np.ndarray, draws: np.ndarray) -> tuple[float, float, float]:
    there = np.isfinite(observed)
    if not there.any():
        return math.nan, math.nan, math.nan
    weights = np.where(np.isfinite(drawn), draws, 0)
    total = weights.sum(axis=1)
    drawn = (weights * np.nan_to_num(drawn)).sum(axis=1)[total > 0] / total[total > 0]
    value = float(observed[there].mean())
    return value, *percentile_interval(value, drawn)


def _label(panels: Sequence[Panel]) -> str:
    sizes = sorted({len(panel.genes) for panel in panels})
    return panels[0].label if len(sizes) == 1 else f"{panels[0].name} ({sizes[0]} to {sizes[-1]})"


def gene_table(folds: Sequence[FoldScores], names: Sequence[str]) -> pd.DataFrame:
    """Average each gene's scores over the folds.

    Parameters
    ----------
    folds
        All of one protocol.
    names
        Gene names, in the order of the columns.

    Returns
    -------
    pandas.DataFrame
        One row for each gene and method: ``gene``, ``method``, the columns of `gene_scores`, and ``folds``, the number
        of folds (of a section) in which the gene was scored.
    """
    _same_methods(folds)
    parts = []
    for method in folds[0].tables:
        stacked = pd.concat([fold.tables[method] for fold in folds])
        grouped = stacked.groupby(level="gene")
        table = grouped.mean()
        table["folds"] = grouped["pearson"].count()
        table.insert(0, "method", method)
        table.insert(0, "gene", np.asarray(names, dtype=object)[table.index])
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class Difference:
    """Mean Pearson of one method minus another's on the same spots.

    Attributes
    ----------
    value
        Mean over folds.
    low, high
        95 % interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(folds: Sequence[FoldScores], a: str, b: str) -> Difference:
    """Compare two methods on the same spots: a minus b, mean Pearson over the first panel.

    Parameters
    ----------
    folds
        Of one protocol, or those of one section.
    a, b
        Methods.

    Returns
    -------
    Difference
        Mean over folds. The interval comes from `patch_replicates`: the same patches are drawn for both methods,
        inside each fold, independently from fold to fold. It covers which spots happened to be tested, not how the
        models would differ if trained again.

    Raises
    ------
    HistoweftError
        A method was not scored.
    """
    for method in (a, b):
        if any(method not in fold.replicates for fold in folds) or not folds:
            known = ", ".join(folds[0].replicates) if folds else "none"
            raise HistoweftError(f"{method!r} was not scored in every fold; scored: {known}")
    differences = np.nanmean([fold.replicates[a] - fold.replicates[b] for fold in folds], axis=0)
    value = float(differences[0])
    return Difference(value, *percentile_interval(value, differences[1:]))


def gain_rows(
    folds: Sequence[FoldScores], study: str, protocol: str, method: str, against: Iterable[str]
) -> list[dict[str, Any]]:
    """Write the paired differences of one method as rows of the metrics table.

    Parameters
    ----------
    folds
        All of one protocol.
    study, protocol
        Of the metrics table.
    method
        What gains or loses, such as the default.
    against
        Methods it is compared with; itself is skipped.

    Returns
    -------
    list of dict
        Metric ``gain_<panel>``; the note says ``against <method>``.
    """
    panel = folds[0].panels[0]
    rows = []
    for other in against:
        if other == method:
            continue
        gain = paired_difference(folds, method, other)
        rows.append(metric_row(
            study, "histology", "expression_from_histology", method, "all", protocol, f"gain_{panel.name}",
            gain.value, low=gain.low, high=gain.high, n=sum(fold.n for fold in folds),
            panel=_label([fold.panels[0] for fold in folds]), note=f"against {other}",
        ))  # fmt: skip
    return rows


def leakage_gap(rows: pd.DataFrame | Iterable[Mapping[str, Any]], honest: str = "block") -> list[dict[str, Any]]:
    """Say how much a random split flatters each method.

    Parameters
    ----------
    rows
        As of `summarise`, of the random and the honest protocol.
    honest
        ``block`` or ``section``.

    Returns
    -------
    list of dict
        Metric ``leakage_gap``, protocol ``random``: `PRIMARY` on the random split minus that on the honest one, for
        each method and sample (fold ``all``) that has both.
    """
    table = _table(rows)
    table = table[(table["metric"] == PRIMARY) & (table["fold"] == "all")]
    key = ["study", "method", "sample"]
    both = table[table["protocol"] == "random"].merge(table[table["protocol"] == honest], on=key)
    return [
        metric_row(
            row["study"], "histology", "expression_from_histology", row["method"], row["sample"], "random",
            "leakage_gap", row["value_x"] - row["value_y"], n=row["n_x"], panel=row["panel_x"],
            note=f"{PRIMARY}: {row['value_x']:.3f} random, {row['value_y']:.3f} {honest}",
        )
        for row in both.to_dict("records")
    ]  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """Which method wins on one protocol.

    Attributes
    ----------
    protocol
        Where.
    winner
        The best method that can be used on new tissue: the default from now on.
    beats_floors, meets_bar
        Whether the default is above every floor, and at or above the bar.
    text
        The same in words.
    """

    protocol: str
    winner: str
    beats_floors: bool
    meets_bar: bool
    text: str


def verdict(
    rows: pd.DataFrame | Iterable[Mapping[str, Any]],
    default: str,
    floors: Sequence[str] = FLOORS,
    bar: str = BAR,
    protocol: str = "block",
) -> Verdict:
    """Decide whether the default earns its place.

    Parameters
    ----------
    rows
        As of `summarise` and `gain_rows`; the latter give the intervals.
    default
        The method of the config.
    floors
        What it must be above. Those in `ORACLES` count, but cannot win: they need the counts they predict.
    bar
        What it must reach.
    protocol
        Of the rows to look at.

    Returns
    -------
    Verdict

    Raises
    ------
    HistoweftError
        The default has no `PRIMARY` row for the whole study, or there is no floor to compare with.
    """
    table = _table(rows)
    table = table[(table["protocol"] == protocol) & (table["sample"] == "all") & (table["fold"] == "all")]
    scores = table[table["metric"] == PRIMARY].set_index("method")["value"].astype(float).drop(CEILING, errors="ignore")
    there = [floor for floor in floors if floor in scores]
    if default not in scores or not there:
        absent = repr(default) if default not in scores else "any floor"
        raise HistoweftError(f"no {PRIMARY} of {absent} on protocol {protocol!r}; scored: {', '.join(scores.index)}")
    gains = table[(table["metric"] == PRIMARY.replace("pearson", "gain")) & (table["method"] == default)]
    best_floor = scores[there].idxmax()
    beats = bool(scores[default] > scores[best_floor])
    meets = bar not in scores or bool(scores[default] >= scores[bar])
    usable = scores.drop([method for method in ORACLES if method in scores])
    # At equal scores the default stays.
    winner = default if scores[default] >= usable.max() else str(usable.idxmax())
    words = "beats" if beats else "does not beat"
    text = f"{default} ({scores[default]:.3f}) {words} the best floor, {_gain(scores, gains, default, best_floor)}"
    if bar in scores:
        text += f"; it {'is at or above' if meets else 'is below'} the bar, {_gain(scores, gains, default, bar)}"
    if winner == default:
        text += "."
    elif winner == bar:
        text += f". {winner} ({scores[winner]:.3f}) is best, but the workflow paints with no such ensemble."
    else:
        text += f". {winner} ({scores[winner]:.3f}) is best and becomes the default."
    return Verdict(protocol, winner, beats, meets, text)


def _gain(scores: pd.Series, gains: pd.DataFrame, default: str, other: str) -> str:
    oracle = ", an oracle" if other in ORACLES else ""
    named = f"{other} ({scores[other]:.3f}{oracle}), by {scores[default] - scores[other]:+.3f}"
    row = gains[gains["note"] == f"against {other}"]
    if row.empty:
        return named
    one = Difference(*(float(row[name].iloc[0]) for name in ("value", "low", "high")))
    doubt = "" if one.certain else ", which may be chance"
    return f"{named} (95 % interval {one.low:+.3f} to {one.high:+.3f}{doubt})"


def _table(rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    return rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
