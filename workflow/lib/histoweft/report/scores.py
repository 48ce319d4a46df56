"""Rows of the metrics table as both pages show them: floors first, each model beside the best floor."""

from __future__ import annotations

import math
import os
import re
from typing import Any

import pandas as pd

from histoweft.metrics import read_metrics
from histoweft.report.html import NOTHING, Html, joined, number, plain, table

SMALLER_IS_BETTER = ("mse", "rmse", "ece", "seconds", "peak_mb", "euclid_", "brier", "false_positive_rate")
"""Beginnings of the names of metrics."""

NOT_COMPARED = re.compile(r"^(gain_|leakage_gap)|_training$|^seconds_per_epoch$")
"""Metrics that are differences themselves, or no evidence: they stand beside no floor."""

LONG_NOTE = 64
"""Characters above which a note is put below the table."""

_GROUP = ["task", "sample", "protocol", "fold", "metric", "panel"]

_JUDGED = {
    "expression_from_histology": ("pearson_top50",),
    "voxel_reconstruction": ("r2",),
    "voxel_position": ("euclid_folded_voxels", "euclid_voxels"),
    "cell_type": ("macro_f1", "accuracy"),
    "deconvolution": ("rmse",),
    "domains": ("ari",),
    "domains_semi": ("ari",),
    "integration": ("scib_total",),
    "trajectory": ("order_spearman",),
    "persister": ("auroc",),
    "rare": ("recall",),
    "response": ("auroc",),
}
"""Task -> the metric that judges it, the first that was measured."""

_PROTOCOLS = {
    "random": "at random",
    "block": "contiguous blocks",
    "section": "whole sections",
    "patient": "whole patients or donors",
    "cohort": "whole cohorts",
    "truth": "nothing; known truth",
}

BETTER, LEVEL, LOST, FLOOR_USED = "better", "level", "loses", "floor used"
"""What became of a model beside its best floor."""

FROM_IMAGE = "expression_from_histology"
"""Task of the histology stage."""

BAR, CEILING, PRIMARY = "bar:ensemble", "ceiling:thinning", "pearson_top50"

METHODS = {
    "floor:mean": "every spot is given the mean of the training spots",
    "floor:library_size": "told the spot's total count, which no image gives",
    "floor:coordinates": "mean of the nearest training spots by position, no image",
    "floor:ridge_patch": "ridge regression on colour and texture under the spot",
    "floor:ridge_context": "ridge regression on the same image features as the networks",
    BAR: "mean of a ridge, a perceptron and boosted trees on the same image features",
    "autoencoder": "the four-layer convolutional autoencoder with gene channels, the reference",
    "context": "networks and a ridge on the image, from the spot to its wide surroundings",
    "context_serial": "the image, and what other sections measured at the same registered position",
    CEILING: "the most that the noise of the counts leaves to be explained",
}
"""Methods of predicting expression from the H&E -> what they are, for people."""

HELD_OUT = {
    "section": "whole sections",
    "patient": "whole patients",
    "block": "blocks of a section",
    "random": "random spots (leaks)",
}

_ORDER = {"floor": 0, "bar": 1, "": 2, "ceiling": 3}
"""Kinds of methods, in the order of the table."""

_COLUMNS = {
    PRIMARY: "r, top 50 genes",
    "pearson_all": "r, all genes",
    "pearson_top50_depth": "r, top 50, depth removed",
    "share_better_all": "genes better than chance, %",
    "mse_ratio_top50": "error, % of the mean's",
}


def read_scores(path: str | os.PathLike) -> pd.DataFrame:
    """Read a metrics table; text stays text, all numbers (``n`` too) are floats, NaN where a cell is empty."""
    return read_metrics(path).astype({"n": float})


def is_floor(method: str) -> bool:
    """Return whether a method is a baseline."""
    return method.startswith("floor:")


def named(method: str, *more: str) -> Html:
    """Return a method without its prefix, and tags: what the prefix says (floor, bar, ceiling) and `more`."""
    kind, name = _kind(method)
    tags = [Html(' <span class="tag">{}</span>').format(tag) for tag in (kind, *more) if tag]
    return joined([name, *tags])


def against_floor(value: float, floors: list[float], metric: str) -> tuple[float, str] | None:
    """Compare a score with the best floor.

    Returns
    -------
    Difference to the best floor, and ``better``, ``worse`` or ``equal``; None where there is no floor.
    """
    floors = [floor for floor in floors if not math.isnan(floor)]
    if not floors or math.isnan(value):
        return None
    smaller = metric.startswith(SMALLER_IS_BETTER)
    difference = value - (min(floors) if smaller else max(floors))
    if abs(difference) < 5e-4 * max(abs(value), 1e-9):
        return difference, "equal"
    return difference, "better" if (difference < 0) == smaller else "worse"


def evidence(frame: pd.DataFrame, tall: bool = False, task: bool = True) -> Html:
    """Return the table of all scores.

    Parameters
    ----------
    frame
        Rows of the metrics table.
    tall
        In a box that scrolls.
    task
        With a column for the task.
    """
    rows, kinds, notes = [], [], {}
    for _, group in frame.groupby(_GROUP, sort=False):
        floors = group.loc[group["method"].map(is_floor)]
        models = group.loc[~group["method"].map(is_floor)]
        ordered = pd.concat([floors, models]).to_dict("records")
        for at, row in enumerate(ordered):
            rows.append(_row(row, floors["value"].tolist(), notes))
            kinds.append(
                " ".join(filter(None, ["group" if at == 0 else "", "floor" if is_floor(row["method"]) else ""]))
            )
    columns = ["Task", "Sample", "Protocol", "Metric", "Method", "Value", "95 % interval", "Beside the best floor", "n"]
    columns += ["Note"]
    said = [at for at in range(len(columns)) if any(row[at] not in (None, "", NOTHING) for row in rows)]
    said = said if task else said[1:]
    shown = [[row[at] for at in said] for row in rows]
    made = table([columns[at] for at in said], shown, row_kinds=kinds, tall=tall, empty="Nothing was scored.")
    return joined([made, _notes(notes)]) if notes else made


def _notes(notes: dict[str, int]) -> Html:
    items = joined(Html("<li>{}</li>").format(f"{text[:1].upper()}{text[1:]}") for text in notes)
    return Html('<ol class="caption notes">{}</ol>').format(items)


def _note(row: dict[str, Any], notes: dict[str, int]) -> Html | str:
    """Return what stands in the last column: a long text that many rows share becomes a number, explained below."""
    parts = [part for part in row["note"].split("; ") if part]
    default = Html('<span class="tag">default</span> ') if "default" in parts else ""
    text = "; ".join(part for part in parts if part != "default")
    # A metric such as pearson_top50 says its panel itself.
    if row["panel"] and row["panel"].split()[0] not in row["metric"].split("_"):
        text = "; ".join(filter(None, [text, f"panel: {row['panel']}"]))
    if len(text) > LONG_NOTE:
        text = f"note {notes.setdefault(text, len(notes) + 1)}"
    return joined([default, text]) if default else text


def _row(row: dict[str, Any], floors: list[float], notes: dict[str, int]) -> list[Any]:
    if is_floor(row["method"]) or row["method"] == CEILING or NOT_COMPARED.search(row["metric"]):
        beside: Any = NOTHING
    else:
        found = against_floor(row["value"], floors, row["metric"])
        beside = "no floor" if found is None else _words(*found)
    interval = NOTHING if math.isnan(row["low"]) else f"{number(row['low'])} to {number(row['high'])}"
    fold = "" if row["fold"] in ("", "all") else f", fold {row['fold']}"
    return [
        row["task"].replace("_", " "),
        row["sample"],
        f"{row['protocol']}{fold}",
        row["metric"],
        named(row["method"]),
        row["value"],
        interval,
        beside,
        None if math.isnan(row["n"]) else int(row["n"]),
        _note(row, notes),
    ]


def _words(difference: float, verdict: str) -> str:
    if verdict == "equal":
        return "the same"
    sign = "+" if difference > 0 else "−"
    return f"{sign}{plain(float(f'{abs(difference):.3g}'))}, {verdict}"


def judged(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Set the method that each task uses beside its best floor, in the metric that judges the task.

    Parameters
    ----------
    frame
        Metrics table.

    Returns
    -------
    One entry for each stage, task, protocol and panel: ``stage``, ``task``, ``protocol``, ``panel``, ``metric``,
    ``method`` and its ``value``, ``low``, ``high``; ``floor`` and its ``floor_value`` (empty and NaN without one);
    ``verdict``: `BETTER`, `LEVEL` (a 95 % interval holds the floor, or no difference), `LOST`, `FLOOR_USED` where the
    method is a floor itself, or empty where there is nothing to compare with. Where a task was scored by section, the
    mean over sections, without interval.
    """
    found = []
    for (stage, task, protocol, panel), rows in frame.groupby(["stage", "task", "protocol", "panel"], sort=False):
        metric = next((name for name in _JUDGED.get(task, ()) if (rows["metric"] == name).any()), "")
        means = _means(rows.loc[rows["metric"] == metric])
        models = means.loc[[_kind(method)[0] == "" for method in means.index], "value"].dropna()
        chosen = means.index[means["default"]]
        if models.empty:
            continue
        smaller = metric.startswith(SMALLER_IS_BETTER)
        method = chosen[0] if len(chosen) else models.idxmin() if smaller else models.idxmax()
        floors = means.loc[map(is_floor, means.index), "value"].drop(method, errors="ignore").dropna()
        floor = "" if floors.empty else floors.idxmin() if smaller else floors.idxmax()
        entry = {"stage": stage, "task": task, "protocol": protocol, "panel": panel, "metric": metric, "method": method}
        entry |= means.loc[method, ["value", "low", "high"]].to_dict()
        entry |= {"floor": floor, "floor_value": floors.get(floor, math.nan)}
        gain = _gain(frame.loc[(frame["task"] == task) & (frame["protocol"] == protocol)], panel, method, floor)
        found.append(entry | {"verdict": _verdict(entry, gain)})
    return found


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return value, low, high of each method over all sections, and whether it is the default."""
    rows = rows.loc[rows["fold"].isin(["all", ""])] if rows["fold"].isin(["all", ""]).any() else rows
    rows = rows.loc[rows["sample"] == "all"] if (rows["sample"] == "all").any() else rows
    by = rows.assign(default=rows["note"].str.contains(r"\bdefault\b")).groupby("method", sort=False)
    means = by[["value", "low", "high"]].mean()
    means.loc[by.size() > 1, ["low", "high"]] = math.nan
    return means.assign(default=by["default"].any())


def _gain(frame: pd.DataFrame, panel: str, method: str, floor: str) -> pd.Series | None:
    """Return the measured difference to the floor with its interval, where a stage wrote one, if for another panel."""
    frame = frame.loc[frame["panel"] == panel] if (frame["panel"] == panel).any() else frame
    against = frame["metric"].str.startswith("gain_") & (frame["method"] == method) & (frame["sample"] == "all")
    rows = frame.loc[against & frame["fold"].isin(["all", ""]) & (frame["note"] == f"against {floor}")]
    return rows.iloc[0] if len(rows) else None


def _verdict(entry: dict[str, Any], gain: pd.Series | None) -> str:
    """Return what became of a method beside its floor: by the interval of the difference, else by its own."""
    if is_floor(entry["method"]):
        return FLOOR_USED
    compared = against_floor(entry["value"], [entry["floor_value"]], entry["metric"])
    if compared is None:
        return ""
    around = (
        (entry["low"] <= entry["floor_value"] <= entry["high"]) if gain is None else gain["low"] <= 0 <= gain["high"]
    )
    return LEVEL if compared[1] == "equal" or around else BETTER if compared[1] == "better" else LOST


def judged_table(entries: list[dict[str, Any]]) -> Html:
    """Return `judged` as a table: what was asked, what is used, the best floor, and which of them won."""
    kinds = {BETTER: "good", LOST: "lost", FLOOR_USED: "lost"}
    rows = []
    for entry in entries:
        interval = "" if math.isnan(entry["low"]) else f" ({_score(entry['low'])} to {_score(entry['high'])})"
        verdict = entry["verdict"]
        tag = Html('<span class="tag {}">{}</span>').format(kinds.get(verdict, ""), verdict) if verdict else NOTHING
        rows.append(
            [
                _over(sentence(entry["task"]), " · ".join(filter(None, [entry["stage"], entry["panel"]]))),
                _over(_PROTOCOLS.get(entry["protocol"], entry["protocol"]), entry["metric"]),
                _over(named(entry["method"]), _score(entry["value"]) + interval),
                _over(named(entry["floor"]), _score(entry["floor_value"])) if entry["floor"] else "none",
                tag,
            ]
        )
    columns = ["Task", "Held out, and metric", "Used, and its score (95 %)", "Best floor, and its score", "Verdict"]
    return table(columns, rows, empty="Nothing was scored.")


def _over(above: Any, below: str) -> Html:
    """Return two lines of a cell, the lower one quiet."""
    return Html('{}<br><span class="quiet">{}</span>').format(above, below)


def _score(value: float) -> str:
    """Return a score with decimals that suit its size."""
    if math.isnan(value):
        return NOTHING
    return f"{value:.3f}" if abs(value) < 10 else number(value)


def sentence(task: str) -> str:
    """Return a task as people write it."""
    return task[:1].upper() + task[1:].replace("_", " ")


def without_parts(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out the rows of single folds and sections wherever the mean over all of them has a row as well."""
    key = ["task", "method", "protocol", "metric"]
    whole = (frame["sample"] == "all") & (frame["fold"] == "all")
    covered = pd.MultiIndex.from_frame(frame[key]).isin(pd.MultiIndex.from_frame(frame.loc[whole, key]))
    return frame.loc[whole | ~covered]


def from_image(frame: pd.DataFrame, sample: str = "all") -> pd.DataFrame:
    """Return what the histology stage scored, a row for each protocol, method and metric.

    Parameters
    ----------
    frame
        Metrics table.
    sample
        A sample, or ``all``: the mean over all of them.
    """
    key = ["protocol", "method", "metric", "note"]
    own = frame.loc[(frame["task"] == FROM_IMAGE) & (frame["sample"] == sample)]
    # A section that was held out whole has one fold and no mean over folds.
    whole = own["fold"] == "all"
    return pd.concat([own.loc[whole], own.loc[~whole]]).drop_duplicates(key)


def image_table(frame: pd.DataFrame, sample: str = "all") -> Html:
    """Return methods by protocols: floors by rising correlation, the bar, models, the ceiling.

    Parameters
    ----------
    frame, sample
        See `from_image`.
    """
    found = from_image(frame, sample)
    rows, kinds = [], []
    for protocol in sorted(found["protocol"].unique(), key=[*HELD_OUT].index):
        group = found.loc[(found["protocol"] == protocol) & found["metric"].isin(_COLUMNS)]
        primary = group.loc[group["metric"] == PRIMARY].set_index("method")
        values = group.pivot_table(index="method", columns="metric", values="value").reindex(columns=list(_COLUMNS))
        values[["share_better_all", "mse_ratio_top50"]] *= 100
        ranked = sorted(primary.index, key=lambda method: (_ORDER[_kind(method)[0]], primary["value"][method]))
        for at, method in enumerate(ranked):
            row = primary.loc[method]
            tags = [tag for tag, word in (("default", "default"), ("oracle", "told")) if word in row["note"].split()]
            first, *others = values.loc[method]
            held_out = HELD_OUT[protocol] if at == 0 else ""
            interval = NOTHING if math.isnan(row["low"]) else f"{row['low']:.2f} to {row['high']:.2f}".replace("-", "−")
            name = Html('<span style="white-space:nowrap">{}</span>').format(named(method, *tags))
            rows.append([held_out, name, first, interval, *others])
            kinds.append(" ".join(filter(None, ["group" if at == 0 else "", "floor" if is_floor(method) else ""])))
    first, *others = _COLUMNS.values()
    columns = ["Held out", "Method", first, "95 % interval", *others]
    return table(columns, rows, row_kinds=kinds, empty="Nothing was held out, so nothing was scored.")


def image_methods(frame: pd.DataFrame) -> Html:
    """Return what the methods of `image_table` are, in words."""
    there = frame.loc[(frame["task"] == FROM_IMAGE) & (frame["metric"] == PRIMARY), "method"].unique()
    pairs = [
        Html("<dt>{}</dt><dd>{}</dd>").format(named(name), words) for name, words in METHODS.items() if name in there
    ]
    return Html('<dl class="pairs">{}</dl>').format(joined(pairs))


def _kind(method: str) -> tuple[str, str]:
    """Split a method into floor, bar, ceiling or nothing, and its name."""
    kind, _, name = method.partition(":")
    return (kind, name) if kind in _ORDER else ("", method)
