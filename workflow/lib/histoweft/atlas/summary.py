"""From the results of single folds to the study's table and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from histoweft.atlas import score
from histoweft.atlas.folds import BLOCK, HEMISPHERE, RANDOM
from histoweft.atlas.plan import FRONT, REFERENCE
from histoweft.atlas.results import KNN, MEAN, MULTISCALE, NEIGHBOURHOOD, PCA, RIDGE, FoldResult
from histoweft.atlas.voxels import Voxels
from histoweft.metrics import adjusted_rand_index, metric_row

RECONSTRUCTION, POSITION = "voxel_reconstruction", "voxel_position"
FLOORS = {RECONSTRUCTION: (PCA,), POSITION: (RIDGE, KNN)}
"""What each task must beat."""

HONEST = (BLOCK, HEMISPHERE, RANDOM)
"""Protocols by which the default is chosen, in this order of preference."""

_PRIMARY = {RECONSTRUCTION: ("r2", 1), POSITION: ("euclid_folded_voxels", -1)}
"""Metric of each task that decides, and its sign: 1 where more is better."""
_WORDS = {
    RANDOM: "voxels held out at random",
    BLOCK: "contiguous blocks held out",
    HEMISPHERE: "one half of the organ held out",
}


@dataclass(frozen=True)
class Summary:
    """What the study learned.

    Attributes
    ----------
    rows
        Metrics.
    verdict
        ``texts``, ``warnings``, ``default`` (of the reconstruction) and ``defaults`` (of each task).
    along_z
        Mean distance and reconstruction error of each section: protocol, method, z, euclid_voxels, error, n.
    history
        Loss curves: protocol, fold, method, epoch, and what was logged.
    """

    rows: pd.DataFrame
    verdict: dict[str, Any]
    along_z: pd.DataFrame
    history: pd.DataFrame


def summarise(
    found: Sequence[FoldResult], voxels: Voxels, study: str, model: str, clusters: Mapping[str, float] | None = None
) -> Summary:
    """Score all folds, compare, and decide.

    Parameters
    ----------
    found
        Results of all jobs.
    voxels
        The atlas.
    study
        Name.
    model
        The config's choice.
    clusters
        ARI of latent clusters and structures, by method; see `latent_clusters`.

    Returns
    -------
    Summary
    """
    scored = pd.DataFrame([row for one in found for row in _fold_rows(one, voxels)])
    rows = _metric_rows(scored, study, model, voxels)
    rows += _gains(scored, study)
    rows += _leakage(rows, study)
    rows += [
        metric_row(study, "atlas", "domains", method, "all", RANDOM, "ari", value, note="k-means on the latent")
        for method, value in (clusters or {}).items()
    ]
    return Summary(pd.DataFrame(rows), verdict(scored, model), along_z(found, voxels), _history(found))


def _fold_rows(found: FoldResult, voxels: Voxels) -> list[dict[str, Any]]:
    """Return protocol, fold, task, method, metric, value and n of everything scored in one job."""
    rows: list[dict[str, Any]] = []
    truth = voxels.position[found.test]
    for one in found.results:
        scores: dict[str, dict[str, float]] = {}
        if len(one.n):
            scores[RECONSTRUCTION] = score.reconstruction_scores(
                one.error, one.total, one.n, one.pearson, one.unit_error
            )
        if len(one.place):
            scores[POSITION] = score.place_scores(one.place, truth, voxels)
            for depth in score.depths_of(voxels):
                labels = voxels.ancestors(depth)
                told = score.region_of(one.place, voxels, labels)
                scores[POSITION][f"region_accuracy_depth{depth}"] = float((told == labels[found.test]).mean())
        for depth, told in one.regions.items():
            truth_at = voxels.ancestors(depth)[found.test]
            scores.setdefault(POSITION, {})[f"region_accuracy_latent_depth{depth}"] = float((told == truth_at).mean())
        if "seconds" in one.facts:
            scores.setdefault(RECONSTRUCTION, {})["seconds"] = float(one.facts["seconds"])
        rows += [
            {"protocol": found.protocol, "fold": found.fold, "task": task, "method": one.method, "metric": metric,
             "value": value, "n": len(found.test), "panel": f"most variable ({len(found.genes)})",
             "device": one.facts["device"] if metric == "seconds" and "device" in one.facts else ""}
            for task, values in scores.items() for metric, value in values.items()
        ]  # fmt: skip
    return rows


def _metric_rows(scored: pd.DataFrame, study: str, model: str, voxels: Voxels) -> list[dict[str, Any]]:
    rows = []
    for (protocol, task, method, metric), group in scored.groupby(["protocol", "task", "method", "metric"], sort=False):
        devices = [f"device {name}" for name in sorted({*group["device"]} - {""})]
        note = "; ".join(filter(None, [note_of(method, model), *devices]))
        panel = group["panel"].iloc[0] if task == RECONSTRUCTION else ""
        shared = (study, "atlas", task, method, "all", protocol, metric)
        for row in group.itertuples():
            rows.append(metric_row(*shared, row.value, fold=row.fold, n=row.n, panel=panel, note=note))
        value, low, high = interval(group["value"].to_numpy(), *_possible(metric))
        rows.append(metric_row(*shared, value, low=low, high=high, n=int(group["n"].sum()), panel=panel, note=note))
    return rows


def note_of(method: str, model: str) -> str:
    """Return what a reader of the table needs to know about a method."""
    notes = ["default"] if method == model else []
    if method in NEIGHBOURHOOD:
        notes.append("code shared with neighbouring held-out voxels")
    if method == FRONT:
        notes.append("its own validation voxels: the first fifth along z")
    return "; ".join(notes)


def _possible(metric: str) -> tuple[float, float]:
    """Return the least and the most that a metric can be."""
    if metric.startswith("r2"):
        return -math.inf, 1.0
    if metric == "pearson":
        return -1.0, 1.0
    return 0.0, 1.0 if metric.startswith("region_accuracy") else math.inf


def interval(values: np.ndarray, least: float = -math.inf, most: float = math.inf) -> tuple[float, float, float]:
    """Return the mean over folds and its 95 % interval by Student's t, cut at what the values can be.

    There is none of a single fold. Folds share most of their training voxels, so the interval tells how much folds
    differ rather than how a new organ would.
    """
    from scipy.stats import t

    mean = float(values.mean())
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, max(mean - half, least), min(mean + half, most)


def differences(scored: pd.DataFrame, task: str, protocol: str, method: str, other: str) -> np.ndarray:
    """Return how much better a method is than another in each fold that has both, in the task's primary metric."""
    metric, sign = _PRIMARY[task]
    part = scored[(scored["task"] == task) & (scored["protocol"] == protocol) & (scored["metric"] == metric)]
    table = part.pivot_table(index="fold", columns="method", values="value")
    if method not in table or other not in table:
        return np.zeros(0)
    return (sign * (table[method] - table[other])).dropna().to_numpy()


def best_floor(scored: pd.DataFrame, task: str, protocol: str) -> str | None:
    """Return the floor of a task that does best under a protocol."""
    return _best(scored, task, protocol, FLOORS[task])


def _best(scored: pd.DataFrame, task: str, protocol: str, among: Sequence[str]) -> str | None:
    metric, sign = _PRIMARY[task]
    part = scored[
        (scored["task"] == task)
        & (scored["protocol"] == protocol)
        & (scored["metric"] == metric)
        & scored["method"].isin(among)
    ]
    return None if part.empty else str((sign * part.groupby("method")["value"].mean()).idxmax())


def _gains(scored: pd.DataFrame, study: str) -> list[dict[str, Any]]:
    """Rows of the paired difference of every model to the best floor of its task: positive is better."""
    rows = []
    for task, (metric, _) in _PRIMARY.items():
        for protocol in scored["protocol"].unique():
            floor = best_floor(scored, task, protocol)
            part = scored[(scored["protocol"] == protocol) & (scored["task"] == task) & (scored["metric"] == metric)]
            for method in part["method"].unique():
                if floor is None or method.startswith("floor:"):
                    continue
                gain = differences(scored, task, protocol, method, floor)
                value, low, high = interval(gain)
                rows.append(
                    metric_row(
                        study, "atlas", task, method, "all", protocol, f"gain_{metric}", value, low=low, high=high,
                        n=len(gain), note=f"better than {floor} by, in the same folds",
                    )
                )  # fmt: skip
    return rows


def _leakage(rows: Sequence[Mapping[str, Any]], study: str) -> list[dict[str, Any]]:
    """Rows of what random folds add to each method's score over blocks: neighbours on both sides."""
    mean = {
        (row["task"], row["method"], row["protocol"], row["metric"]): row["value"]
        for row in rows if row["fold"] == "all"
    }  # fmt: skip
    found = []
    for (task, method, protocol, metric), value in mean.items():
        if protocol != RANDOM or metric != _PRIMARY[task][0] or (task, method, BLOCK, metric) not in mean:
            continue
        gap = value - mean[task, method, BLOCK, metric]
        note = f"{metric}: random minus block"
        found.append(metric_row(study, "atlas", task, method, "all", BLOCK, "leakage_gap", gap, note=note))
    return found


def verdict(scored: pd.DataFrame, model: str) -> dict[str, Any]:
    """Say in words which model is worth using for what.

    Returns
    -------
    dict
        ``texts``, ``warnings``, ``default``, ``defaults``.
    """
    protocols = [name for name in HONEST if (scored["protocol"] == name).any()]
    texts, warnings, defaults = [], [], {}
    for task, what in ((RECONSTRUCTION, "reconstruction"), (POSITION, "position")):
        for protocol in protocols:
            text, winner = _compare(scored, task, what, protocol)
            if not text:
                continue
            texts.append(text)
            # The first protocol is the most honest one there is: it decides.
            if task not in defaults:
                defaults[task] = winner
                if winner.startswith("floor:"):
                    warnings.append(
                        f"Atlas, {what} ({_WORDS[protocol]}): no model does better than the baseline {winner[6:]}, "
                        "which is therefore the default."
                    )
                elif winner != model and winner not in NEIGHBOURHOOD:
                    warnings.append(
                        f"Atlas, {what} ({_WORDS[protocol]}): {winner} does better than the chosen {model}."
                    )
    texts += _gap_text(scored, model)
    return {"texts": texts, "warnings": warnings, "default": defaults.get(RECONSTRUCTION, ""), "defaults": defaults}


def _compare(scored: pd.DataFrame, task: str, what: str, protocol: str) -> tuple[str, str]:
    metric, sign = _PRIMARY[task]
    part = scored[(scored["task"] == task) & (scored["protocol"] == protocol) & (scored["metric"] == metric)]
    floor = best_floor(scored, task, protocol)
    models = [name for name in part["method"].unique() if not name.startswith("floor:")]
    if floor is None or not models:
        return "", ""
    means = part.groupby("method")["value"].mean()
    unit, digits = ("R2", 3) if task == RECONSTRUCTION else ("voxels of mean distance, halves folded", 2)
    said, best = [], floor
    for name in sorted(models, key=lambda name: -sign * means[name]):
        value, low, high = interval(differences(scored, task, protocol, name, floor))
        if math.isnan(low):
            word, between = ("ahead of" if value > 0 else "behind"), ""
        else:
            word = "ahead of" if low > 0 else "behind" if high < 0 else "level with"
            between = f"; difference {sign * value:+.{digits}f}, 95 % over folds {_range(sign, low, high, digits)}"
        said.append(f"{_name(name)} {means[name]:.{digits}f} ({word} it{between})")
        if value > 0 and (best == floor or sign * means[name] > sign * means[best]):
            best = name
    text = (
        f"{what.capitalize()}, {_WORDS[protocol]} ({unit}): baseline {floor[6:]} {means[floor]:.{digits}f}; "
        + ", ".join(said) + "."
    )  # fmt: skip
    return text, best


def _range(sign: int, low: float, high: float, digits: int) -> str:
    low, high = sorted((sign * low, sign * high))
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def _name(method: str) -> str:
    named = {
        MULTISCALE: "components at several scales, each voxel's numbers shared with its neighbours,",
        REFERENCE: "Spatial-VAE",
        FRONT: "Spatial-VAE with its own validation voxels",
    }
    return named.get(method, method)


def _gap_text(scored: pd.DataFrame, model: str) -> list[str]:
    texts = []
    for task, (metric, _) in _PRIMARY.items():
        part = scored[(scored["task"] == task) & (scored["metric"] == metric) & (scored["method"] == model)]
        means = part.groupby("protocol")["value"].mean()
        if {RANDOM, BLOCK} <= set(means.index):
            what = "R2 of the reconstruction" if task == RECONSTRUCTION else "distance in voxels"
            texts.append(
                f"Leakage gap of {model}, {what}: {means[RANDOM]:.2f} where neighbours of the held-out voxels were "
                f"trained on, {means[BLOCK]:.2f} where they were not."
            )
    return texts


def along_z(found: Sequence[FoldResult], voxels: Voxels, bins: int = 60) -> pd.DataFrame:
    """Average the errors of held-out voxels along z, method by method."""
    z = voxels.position[:, 0]
    low, high = float(z.min()), float(z.max())
    steps = min(bins, max(1, round(high - low) + 1))
    edges = np.linspace(low - 0.5, high + 0.5, steps + 1)
    centre = (edges[:-1] + edges[1:]) / 2
    rows = []
    for one in found:
        section = np.digitize(z[one.test], edges) - 1
        for result in one.results:
            if not len(result.place) or result.method == MEAN:
                continue
            distance = np.linalg.norm(score.fold(result.place, voxels.midline) - voxels.folded()[one.test], axis=1)
            error = result.voxel_error if len(result.voxel_error) else np.full(len(one.test), np.nan)
            table = pd.DataFrame({"section": section, "euclid_voxels": distance, "error": error})
            for at, part in table.groupby("section"):
                rows.append({
                    "protocol": one.protocol, "fold": one.fold, "method": result.method, "z": centre[at],
                    "euclid_voxels": part["euclid_voxels"].mean(), "error": part["error"].mean(), "n": len(part),
                })  # fmt: skip
    columns = ["protocol", "fold", "method", "z", "euclid_voxels", "error", "n"]
    return pd.DataFrame(rows, columns=columns)


def _history(found: Sequence[FoldResult]) -> pd.DataFrame:
    rows = [
        {"protocol": one.protocol, "fold": one.fold, "method": result.method, **epoch}
        for one in found for result in one.results for epoch in result.history
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=None if rows else ["protocol", "fold", "method", "epoch"])


def latent_clusters(
    found: Sequence[FoldResult], voxels: Voxels, seed: int = 0
) -> tuple[dict[str, float], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Cluster the latents of one fold's held-out voxels, as many clusters as there are structures.

    Returns
    -------
    scores
        Method to the adjusted Rand index with the annotated structures; empty without an annotation.
    labels
        Method to (row numbers, clusters).

    Notes
    -----
    k-means, of the first random fold (or the first fold there is); structures at the deepest level with at most 60.
    """
    from sklearn.cluster import MiniBatchKMeans

    depths = [depth for depth in score.depths_of(voxels) if len(np.unique(voxels.ancestors(depth))) <= 60]
    truth = voxels.ancestors(depths[-1]) if depths else None
    k = len(np.unique(truth)) if depths else 12
    first = next((one for one in found if one.protocol == RANDOM), found[0])
    scores, labels = {}, {}
    for one in (job for job in found if (job.protocol, job.fold) == (first.protocol, first.fold)):
        for result in one.results:
            if not result.latent.size or result.method == FRONT:
                continue
            latent = result.latent.astype(np.float32)
            clusters = MiniBatchKMeans(min(k, len(latent)), n_init=3, random_state=seed).fit_predict(latent)
            labels[result.method] = (one.test, clusters)
            if truth is not None:
                scores[result.method] = adjusted_rand_index(truth[one.test], clusters)
    return scores, labels


def honest_protocol(found: Sequence[FoldResult]) -> str:
    """Return the most honest protocol that was run: what the default is chosen by."""
    return next(name for name in HONEST if any(one.protocol == name for one in found))


def place_methods(found: Sequence[FoldResult], default: str) -> list[str]:
    """Return the methods whose places are drawn: the default, the other models, and the floors, three at most."""
    known = [result.method for one in found for result in one.results if len(result.place) and result.method != MEAN]
    return [name for name in dict.fromkeys([default, *sorted(known), RIDGE, KNN]) if name in known and name != FRONT][
        :3
    ]
