"""How well each embedding mixes the batches and keeps the biology, on the same cells; which one to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from histoweft import metrics

FLOOR = "floor:none"
TIE = 0.01
"""Differences of the total below this are no reason to prefer a method over the floor."""

MAX_CELLS = 20_000

NO_EFFECT = 0.01
"""Where batch explains less of the variance of the PCA than this, pcr_comparison is left out: as the share of an effect
that is hardly there, it would reward any change and give the floor 0 for having nothing to remove."""

BATCH_METRICS = ("ilisi", "kbet", "silhouette_batch", "graph_connectivity", "pcr_comparison")
BIO_METRICS = ("nmi", "ari", "silhouette_label", "clisi")
TOTALS = ("scib_batch", "scib_bio", "scib_total")

_LISI_NEIGHBOURS, _KBET_NEIGHBOURS, _GRAPH_NEIGHBOURS = 90, 50, 15


def method_name(method: str) -> str:
    """Return how a method of the config is called in metrics tables: floors carry ``floor:``."""
    return FLOOR if method == "none" else method


def config_name(method: str) -> str:
    """Return how a method of the metrics table is called in the config."""
    return method.removeprefix("floor:")


@dataclass(frozen=True)
class Truth:
    """What conservation is measured against.

    Attributes
    ----------
    kind
        ``"labels"``: expert labels of all sections. ``"own"``: each section's own clusters, compared inside that
        section only.
    values
        One name per cell; missing where a cell has none.
    text
        The same in words for tables and pages.
    """

    kind: str
    values: np.ndarray
    text: str


def truth_of(
    obs: pd.DataFrame, own_clusters: Sequence[str] | None = None, label: str = "label", section: str = "sample"
) -> Truth:
    """Choose what conservation is measured against.

    Expert labels are used when each section has them on at least half of its cells and at least two labels occur.
    Otherwise the clusters that each section had by itself stand in, which favours the floor a little: they come from
    a PCA too.

    Parameters
    ----------
    obs
        One row per cell.
    own_clusters
        Cluster of each cell in its own section, in the order of `obs`.
    label, section
        Columns of `obs`.

    Returns
    -------
    Truth

    Raises
    ------
    ValueError
        Neither labels nor clusters can be used.
    """
    if label in obs:
        there = obs[label].notna()
        share = there.groupby(obs[section].astype(str)).mean()
        if share.min() >= 0.5 and obs.loc[there, label].nunique() >= 2:
            values = obs[label].astype(object).where(there).to_numpy()
            return Truth("labels", values, "expert labels of all sections")
    if own_clusters is None:
        raise ValueError("conservation needs expert labels in every section, or each section's own clusters")
    values = pd.Series(np.asarray(own_clusters, dtype=object)).astype(object).to_numpy()
    if len(values) != len(obs):
        raise ValueError(f"{len(values)} own clusters for {len(obs)} cells")
    return Truth("own", values, "each section's own clusters, inside that section (no expert labels in all sections)")


def warnings_of(obs: pd.DataFrame, truth: Truth, batch_key: str = "sample", condition: str = "condition") -> list[str]:
    """Say where mixing scores punish a difference that may be true.

    Parameters
    ----------
    obs
        One row per cell.
    truth
        See `truth_of`; expert labels found in one batch only are named.
    batch_key, condition
        Columns of `obs`.

    Returns
    -------
    list of str
        Empty when nothing stands out.
    """
    found = []
    batch = obs[batch_key].astype(str)
    if condition in obs and obs[condition].nunique() > 1:
        pure = obs[condition].astype(str).groupby(batch).nunique() == 1
        if pure.any():
            names = _some(pure.index[pure])
            found.append(
                f"condition is confounded with batch: {names} hold{'s' if pure.sum() == 1 else ''} one condition "
                "only, so mixing scores count a true difference between conditions as a fault"
            )
    if truth.kind == "labels":
        labels = pd.Series(truth.values, index=obs.index)
        spread = batch.groupby(labels).nunique()
        alone = spread.index[spread == 1]
        if len(alone):
            found.append(f"in one batch only: {_some(alone)}; mixing scores count keeping such cells apart as a fault")
    return found


def _some(names: Sequence[str], most: int = 4) -> str:
    names = [str(name) for name in names]
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def choose_cells(obs: pd.DataFrame, truth: Truth, section: str = "sample", most: int = MAX_CELLS, seed: int = 0):
    """Choose the cells that all methods are scored on.

    Parameters
    ----------
    obs
        One row per cell.
    truth
        Cells without a value are left out.
    section
        Column of `obs`; each section keeps its share.
    most
        Cells kept at most.
    seed
        Of the draw.

    Returns
    -------
    numpy.ndarray
        Row numbers, ascending.
    """
    usable = np.flatnonzero(pd.Series(truth.values).notna().to_numpy())
    if len(usable) <= most:
        return usable
    rng = np.random.default_rng(seed)
    sections = obs[section].astype(str).to_numpy()[usable]
    kept = []
    for name in np.unique(sections):
        rows = usable[sections == name]
        kept.append(rng.choice(rows, size=max(1, round(most * len(rows) / len(usable))), replace=False))
    return np.sort(np.concatenate(kept))[:most]


def nearest_neighbours(X: np.ndarray, k: int):
    """Find exact nearest neighbours, each cell itself first.

    Parameters
    ----------
    X
        cells x dimensions.
    k
        Neighbours, the cell included; fewer where there are fewer cells.

    Returns
    -------
    scib_metrics.nearest_neighbors.NeighborsResults
    """
    from scib_metrics.nearest_neighbors import NeighborsResults

    from histoweft.graph.neighbours import exact_neighbours

    indices, distances = exact_neighbours(X, min(k, len(X)))
    return NeighborsResults(indices=indices, distances=distances)


def _mixing(near: Any, batch: np.ndarray) -> float:
    from scib_metrics import ilisi_knn

    return float(np.clip(ilisi_knn(near, batch), 0, 1))


def _purity(nears: Sequence[Any], names: Sequence[np.ndarray]) -> list[float]:
    """Score the purity of neighbourhoods (cLISI, 0 to 1) in each of several groups of cells that do not touch."""
    from scib_metrics.metrics import lisi_knn
    from scib_metrics.nearest_neighbors import NeighborsResults

    # All groups in one call: scib-metrics compiles anew for every number of cells.
    k = min(near.n_neighbors for near in nears)
    starts = np.cumsum([0, *(len(one) for one in names)])
    together = NeighborsResults(
        indices=np.concatenate([near.indices[:, :k] + at for near, at in zip(nears, starts)]),
        distances=np.concatenate([near.distances[:, :k] for near in nears]),
    )
    lisi = np.asarray(lisi_knn(together, np.concatenate([np.char.add(f"{i}:", one) for i, one in enumerate(names)])))
    found = []
    for one, at in zip(names, starts):
        kinds = len(set(one))
        median = np.nanmedian(lisi[at : at + len(one)])
        found.append(float(np.clip((kinds - median) / (kinds - 1), 0, 1)))
    return found


def _structure(X: np.ndarray, names: np.ndarray) -> dict[str, float]:
    from sklearn import config_context
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
    from threadpoolctl import threadpool_limits

    # One thread: on few cores, k-means waiting for busy threads took a hundred times its own time.
    with threadpool_limits(1), config_context(working_memory=128):
        # Ten starts, not the single one of scib-metrics: that landed at an ARI of 0.72 on well parted cells.
        found = KMeans(len(set(names)), n_init=10, random_state=0).fit_predict(X)
        width = silhouette_score(X, names)
    return {
        "nmi": float(normalized_mutual_info_score(names, found)),
        "ari": float(adjusted_rand_score(names, found)),
        "silhouette_label": float((width + 1) / 2),
    }


def _conservation(X: np.ndarray, names: np.ndarray, groups: Sequence[np.ndarray], near: Any = None) -> dict[str, float]:
    """Average the conservation scores over groups of rows, each looked at by itself."""
    # Names of one cell each, or one name for all, say nothing about structure.
    groups = [rows for rows in groups if len(rows) >= 10 and 2 <= len(set(names[rows])) < len(rows) / 2]
    if not groups:
        return dict.fromkeys(BIO_METRICS, float("nan"))
    whole = near is not None and len(groups) == 1 and len(groups[0]) == len(X)
    nears = [near] if whole else [nearest_neighbours(X[rows], _LISI_NEIGHBOURS) for rows in groups]
    parts = pd.DataFrame([_structure(X[rows], names[rows]) for rows in groups])
    parts["clisi"] = _purity(nears, [names[rows] for rows in groups])
    return {metric: float(parts[metric].mean()) for metric in BIO_METRICS}


def batch_silhouette(X: np.ndarray, names: np.ndarray, batch: np.ndarray) -> float:
    """Score how little the batches part inside each name: 1 for not at all.

    Parameters
    ----------
    X
        cells x dimensions.
    names
        Label of each cell.
    batch
        Batch of each cell.

    Returns
    -------
    float
        Mean over labels of 1 - abs(silhouette by batch); labels that occur in one batch only are left out, NaN when
        none is left.

    Notes
    -----
    The batch removal adapted silhouette (BRAS) of Rautenstrauch and Ohler 2025: cosine distance, the mean over all
    cells of other batches in place of the nearest batch. A sum of cosine distances to a set of cells needs only the
    sum of their unit vectors, so this takes one pass instead of all pairs; the values are those of
    ``scib_metrics.bras``, which compiles anew for the size of every label.
    """
    X = np.asarray(X, dtype=np.float64)
    norm = np.linalg.norm(X, axis=1, keepdims=True)
    unit = X / np.where(norm > 0, norm, 1.0)
    found = []
    for name in np.unique(names):
        rows = names == name
        u, codes = unit[rows], pd.factorize(batch[rows])[0]
        sizes = np.bincount(codes)
        if len(sizes) < 2 or len(sizes) == len(u):
            continue
        sums = np.stack([u[codes == i].sum(axis=0) for i in range(len(sizes))])
        own, others = sizes[codes], len(u) - sizes[codes]
        inside = (own - (u * sums[codes]).sum(axis=1)) / np.maximum(own - 1, 1)
        outside = (others - (u * (sums.sum(axis=0) - sums[codes])).sum(axis=1)) / others
        larger = np.maximum(inside, outside)
        width = np.where((own > 1) & (larger > 0), (outside - inside) / np.where(larger > 0, larger, 1.0), 0.0)
        found.append(1 - np.abs(width).mean())
    return float(np.mean(found)) if found else float("nan")


def score_embedding(
    X: np.ndarray, before: np.ndarray, batch: np.ndarray, section: np.ndarray, truth: Truth
) -> dict[str, float]:
    """Score one embedding.

    Parameters
    ----------
    X
        cells x dimensions.
    before
        The joint PCA of the same cells.
    batch, section
        Batch and section of each cell.
    truth
        Of the same cells, none missing.

    Returns
    -------
    dict
        Metric to value; all between 0 and 1 except ari (from -0.5), larger is better. Batch mixing: ilisi,
        pcr_comparison, and with labels silhouette_batch and graph_connectivity, without kbet. Conservation: nmi, ari,
        silhouette_label, clisi. Then scib_batch and scib_bio, their means, and scib_total = 0.4 and 0.6 of these.

    Notes
    -----
    Metrics of scib-metrics; weights of Luecken et al. 2022 (doi:10.1038/s41592-021-01336-8). ``silhouette_batch``:
    see `batch_silhouette`. nmi and ari compare k-means clusters, as many as there are names. kbet is taken over all
    cells, without labels, so it also counts true differences in composition as a fault. With ``truth.kind == "own"``
    conservation is the mean over sections of the scores inside each. Metrics that cannot be had (NaN) are left out of
    the means; pcr_comparison is 0 for the floor by definition (see also `NO_EFFECT`).
    """
    from scib_metrics import graph_connectivity, kbet

    X = np.ascontiguousarray(X, dtype=np.float32)
    before = np.ascontiguousarray(before, dtype=np.float32)
    names = truth.values.astype(str)
    near = nearest_neighbours(X, _LISI_NEIGHBOURS)
    scores: dict[str, float] = {"ilisi": _mixing(near, batch)}
    if truth.kind == "labels":
        scores["silhouette_batch"] = batch_silhouette(X, names, batch)
        few = near.subset_neighbors(min(_GRAPH_NEIGHBOURS, near.n_neighbors))
        scores["graph_connectivity"] = float(graph_connectivity(few, names))
        bio = _conservation(X, names, [np.arange(len(X))], near)
    else:
        scores["kbet"] = float(kbet(near.subset_neighbors(min(_KBET_NEIGHBOURS, near.n_neighbors)), batch)[0])
        bio = _conservation(X, names, [np.flatnonzero(section == one) for one in np.unique(section)])
    scores["pcr_comparison"] = _pcr(before, X, batch)
    scores.update(bio)
    scores["scib_batch"] = _mean(scores, BATCH_METRICS)
    scores["scib_bio"] = _mean(scores, BIO_METRICS)
    scores["scib_total"] = 0.4 * scores["scib_batch"] + 0.6 * scores["scib_bio"]
    return scores


def _pcr(before: np.ndarray, after: np.ndarray, batch: np.ndarray) -> float:
    """Share of the batch's part of the variance that is gone; NaN where there was next to none to remove."""
    from scib_metrics.utils import principal_component_regression

    was = principal_component_regression(before, batch, categorical=True)
    if was < NO_EFFECT:
        return float("nan")
    if np.array_equal(before, after):
        return 0.0
    now = principal_component_regression(after, batch, categorical=True)
    return float(np.clip((was - now) / was, 0, 1))


def _mean(scores: Mapping[str, float], names: Sequence[str]) -> float:
    values = [scores[name] for name in names if np.isfinite(scores.get(name, np.nan))]
    return float(np.mean(values)) if values else float("nan")


def section_effect(X: np.ndarray, section: np.ndarray, neighbours: int = 15) -> dict[str, float]:
    """Measure how much sections differ in an embedding.

    Parameters
    ----------
    X
        cells x dimensions.
    section
        Section of each cell.
    neighbours
        Nearest neighbours looked at.

    Returns
    -------
    dict
        ``variance_share``: share of the variance of `X` that lies between the means of sections.
        ``neighbour_purity``: share of a cell's nearest neighbours from its own section.
        ``purity_by_chance``: the same if sections were mixed fully.
    """
    X = np.asarray(X, dtype=np.float64)
    codes, names = pd.factorize(np.asarray(section))
    sizes = np.bincount(codes)
    means = np.stack([X[codes == i].mean(axis=0) for i in range(len(names))])
    total = ((X - X.mean(axis=0)) ** 2).sum()
    between = (sizes[:, None] * (means - X.mean(axis=0)) ** 2).sum()
    near = nearest_neighbours(X, neighbours + 1).indices[:, 1:]
    return {
        "variance_share": float(between / total) if total > 0 else 0.0,
        "neighbour_purity": float((codes[near] == codes[:, None]).mean()),
        "purity_by_chance": float((sizes * (sizes - 1)).sum() / (len(X) * (len(X) - 1))),
    }


@dataclass
class Scores:
    """Scores of all methods.

    Attributes
    ----------
    rows
        Tidy rows for the study's metrics table.
    effect
        Index: method; columns of `section_effect`.
    warnings
        See `warnings_of`.
    truth
        What conservation was measured against, in words.
    cells
        Number of cells scored.
    """

    rows: pd.DataFrame
    effect: pd.DataFrame
    warnings: list[str] = field(default_factory=list)
    truth: str = ""
    cells: int = 0


def score_all(
    embeddings: Mapping[str, np.ndarray],
    obs: pd.DataFrame,
    *,
    study: str,
    batch_key: str = "sample",
    own_clusters: Sequence[str] | None = None,
    default: str | None = None,
    panel: str = "",
    seconds: Mapping[str, float] | None = None,
    most: int = MAX_CELLS,
    seed: int = 0,
) -> Scores:
    """Score all embeddings of a study on the same cells.

    Parameters
    ----------
    embeddings
        Method as the config names it to cells x dimensions, rows in the order of `obs`; must hold ``none``.
    obs
        Cells: sample, condition, the batch column, label where known.
    study
        Name of the study.
    batch_key
        Column whose values were to be mixed.
    own_clusters
        See `truth_of`.
    default
        The method that the config's default selects; its rows say ``default`` in note.
    panel
        Name and size of the gene panel.
    seconds
        Method to the seconds its embedding took; becomes rows too.
    most, seed
        See `choose_cells`.

    Returns
    -------
    Scores
        No interval is given (low and high are missing): cells of a section are not independent of one another, and
        sections are too few to resample.

    Raises
    ------
    ValueError
        The floor is missing, an embedding has another number of rows than `obs`, or there is one batch only.
    """
    if "none" not in embeddings:
        raise ValueError("the floor `none` is missing: nothing to compare with")
    for method, X in embeddings.items():
        if len(X) != len(obs):
            raise ValueError(f"{method}: {len(X)} rows for {len(obs)} cells")
    if obs[batch_key].nunique() < 2:
        raise ValueError(f"one batch only ({batch_key}): mixing cannot be scored")
    truth = truth_of(obs, own_clusters)
    cautions = warnings_of(obs, truth, batch_key)
    cells = choose_cells(obs, truth, most=most, seed=seed)
    used = Truth(truth.kind, truth.values[cells], truth.text)
    batch = obs[batch_key].astype(str).to_numpy()[cells]
    section = obs["sample"].astype(str).to_numpy()[cells]
    before = np.asarray(embeddings["none"])[cells]

    order = ["none", *(m for m in embeddings if m != "none")]
    rows, effects = [], {}
    for method in order:
        X = before if method == "none" else np.asarray(embeddings[method])[cells]
        found = score_embedding(X, before, batch, section, used)
        effects[method_name(method)] = section_effect(X, section)
        if seconds and method in seconds:
            found["seconds"] = float(seconds[method])
        note = "; ".join(
            [*(["default"] if method == default else []), f"conservation: {truth.text}", f"batch: {batch_key}"]
            + [f"warning: {text}" for text in cautions]
        )
        for metric, value in found.items():
            rows.append((method_name(method), metric, value, note))
    table = pd.DataFrame(rows, columns=["method", "metric", "value", "note"]).assign(
        study=study,
        stage="integration",
        task="integration",
        sample="all",
        protocol="truth" if truth.kind == "labels" else "section",
        fold="all",
        low=np.nan,
        high=np.nan,
        n=len(cells),
        panel=panel,
    )
    effect = pd.DataFrame(effects).T.rename_axis("method")
    return Scores(metrics.check_metrics(table), effect, cautions, truth.text, len(cells))


@dataclass(frozen=True)
class Decision:
    """Which embedding to use.

    Attributes
    ----------
    method
        As the config names it.
    floor_won
        Whether that is doing nothing.
    text
        Why, in a sentence or two for tables and pages.
    """

    method: str
    floor_won: bool
    text: str


def best(rows: pd.DataFrame, warnings: Sequence[str] = (), tie: float = TIE) -> Decision:
    """Pick the method of the highest total; the floor when nothing beats it by at least `tie`.

    Parameters
    ----------
    rows
        As of `score_all`.
    warnings
        Cautions to repeat in the text.
    tie
        Smallest gain over the floor that counts.

    Returns
    -------
    Decision
    """
    totals = rows.loc[rows["metric"] == "scib_total"].set_index("method")["value"].astype(float)
    floor = totals[FLOOR]
    others = totals.drop(FLOOR).sort_values(ascending=False, kind="stable")
    if others.empty:
        method, text = FLOOR, "No method was compared with doing nothing."
    else:
        top = others.index[0]
        gain = others.iloc[0] - floor
        if gain >= tie:
            method = top
            text = f"{top} is best: total {others.iloc[0]:.3f}, {gain:+.3f} against doing nothing ({floor:.3f})."
        else:
            method = FLOOR
            how = f"a tie (less than {tie:g})" if gain > -tie else "worse"
            text = (
                f"Doing nothing was best: total {floor:.3f}; the best method, {top}, reached "
                f"{others.iloc[0]:.3f} ({gain:+.3f}), {how}."
            )
    if warnings:
        text += " Read it with care: " + "; ".join(warnings) + "."
    return Decision(config_name(method), method == FLOOR, text)


def mark_default(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return the rows with ``default`` in the note of the method that was chosen."""
    chosen = rows["method"] == method_name(method)
    notes = rows["note"].where(~chosen, "default; " + rows["note"].astype(str))
    return rows.assign(note=notes)
