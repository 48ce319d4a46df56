"""The benchmark on real data: which studies it runs, their scores in one table, and that table for readers.

Everything a reader is shown is rendered from the committed table and the published anchors alone, so that rendering it
again gives the same bytes.
"""

from __future__ import annotations

import json
import math
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histoweft.errors import Faults, InputError, nearest
from histoweft.metrics import NUMBERS, SUBMISSION, TASKS, check_metrics
from histoweft.report.scores import (
    BETTER,
    FLOOR_USED,
    LEVEL,
    LOST,
    SMALLER_IS_BETTER,
    against_floor,
    is_floor,
    judged,
)

TITLES = {
    "expression_from_histology": "Expression from the H&E",
    "voxel_reconstruction": "Atlas: expression of held-out places",
    "voxel_position": "Atlas: place of held-out expression",
    "cell_type": "Cell types",
    "deconvolution": "Deconvolution",
    "domains": "Domains",
    "domains_semi": "Domains from a few labels",
    "integration": "Integration",
    "trajectory": "Trajectory",
    "persister": "Persister cells",
    "rare": "Rare populations",
    "response": "Response to treatment",
}
"""Task -> heading, in the order of the page. `speed` has no scores of its own."""

MEASURES = {
    "pearson_top50": "Pearson's r, mean over the 50 most variable genes",
    "euclid_folded_voxels": "mean distance with the two halves folded, voxels or units of the positions",
    "euclid_voxels": "mean distance, voxels or units of the positions",
    "r2": "R2, mean over genes",
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "rmse": "root mean squared error of proportions",
    "ari": "adjusted Rand index",
    "scib_total": "scIB total, 0.6 conservation + 0.4 mixing",
    "order_spearman": "rank correlation with the known order",
    "recall": "share of the cells found",
    "auroc": "AUROC",
}
"""Metric that judges a task -> its name for readers."""

HELD_OUT = {
    "random": "at random",
    "block": "contiguous blocks",
    "hemisphere": "one half",
    "section": "whole sections",
    "patient": "whole patients",
    "cohort": "whole cohorts",
    "truth": "nothing: known truth",
}
"""Protocol -> what was held out."""

COSTS = {"seconds": "s", "peak_mb": "MB"}
"""Metric of what a method took -> its column."""

TIMED = (*COSTS, "seconds_per_epoch", "speedup")
"""Metrics that another run on another machine will not repeat."""

DIGITS = 6
"""Significant digits of the committed table."""

STUDY_COLUMNS = ("study", "config", "data", "evidence")
ANCHOR_COLUMNS = ("task", "data", "metric", "method", "value", "source", "kind")
KINDS = {
    "quoted": "as its authors or a benchmark printed it, not rerun",
    "recomputed": "from a benchmark's published raw results, not rerun",
}
RUN_COLUMNS = (
    "study", "date", "commit", "python", "versions", "machine", "jobs", "cpu_seconds", "peak_mb", "command",
)  # fmt: skip

INTRODUCTION = (
    "Made by `./histoweft benchmark` from `metrics.tsv` and `anchors.tsv` in this folder; edit nothing here. What ran "
    "when, with which versions, and what it took: `about.tsv`. Floors are marked *floor*, published methods that were "
    "run beside ours *submitted*; the method in bold is the one that the config selects. Intervals are 95 %; where "
    "the mean over sections has none, values alone decide what beats what. `s` and `MB` stand where a stage measured "
    "its method by itself. What was held out stands before each group; what is held out at random has neighbours of "
    "its own tissue in training, which flatters."
)
WIDTH = 120

_KIND_ORDER = {"floor": 0, "bar": 1, "": 2, "ceiling": 3}
_GROUP = ["study", "protocol", "sample", "panel"]


# --------------------------------------------------------------------------------------------------- what is run


@dataclass(frozen=True)
class Study:
    """A line of the list of studies.

    Parameters
    ----------
    name
        Name of the study, as its config gives it.
    configs
        Config files, each laid over the one before; or one program (``.py``), for evidence that no workflow gives:
        it is called with the data root and the metrics table to write.
    data
        Folders below ``data_root`` that it reads.
    evidence
        What it is evidence for.
    peers
        A further config, with published methods that need an environment of their own; None where there is none.
    prepare
        A program that makes the study's inputs, called with the data root and the folder to make, which is the study's
        data root; None where the data are the inputs.
    """

    name: str
    configs: tuple[Path, ...]
    data: tuple[str, ...]
    evidence: str
    peers: Path | None = None
    prepare: Path | None = None

    @property
    def program(self) -> Path | None:
        """The program, None for a study that the workflow runs."""
        return self.configs[0] if self.configs[0].suffix == ".py" else None

    def missing(self, data_root: str | os.PathLike) -> list[str]:
        """Return the folders that the data root lacks."""
        return [name for name in self.data if not (Path(data_root) / name).is_dir()]


def read_studies(path: str | os.PathLike) -> list[Study]:
    """Read the list of studies, and what lies beside their configs.

    A ``benchmark.yaml`` is laid over the config, ``peers.yaml`` on demand; ``prepare.py`` makes the inputs.

    Parameters
    ----------
    path
        Tab-separated: `STUDY_COLUMNS`; configs (or programs) relative to the list, folders of data separated by ``;``.

    Raises
    ------
    InputError
        A column or a config file is missing, or a study is named twice.
    """
    path = Path(path)
    table = _text_table(path, STUDY_COLUMNS)
    faults, studies = Faults(), []
    for line, row in enumerate(table.itertuples(index=False), 2):
        config = Path(os.path.normpath(path.parent / row.config))
        if not config.is_file():
            faults.add(
                f"{path}, line {line}, column config", row.config, "a config file or a program, relative to the list"
            )
        if any(row.study == study.name for study in studies):
            faults.add(f"{path}, line {line}, column study", row.study, "each study once")
        beside = {
            name: found if config.suffix != ".py" and (found := config.with_name(name)).is_file() else None
            for name in ("benchmark.yaml", "peers.yaml", "prepare.py")
        }
        configs = tuple(filter(None, (config, beside["benchmark.yaml"])))
        peers = beside["peers.yaml"] if config.name == "config.yaml" else None
        studies.append(Study(row.study, configs, tuple(row.data.split(";")), row.evidence, peers, beside["prepare.py"]))
    faults.raise_if_any()
    return studies


def chosen(studies: Sequence[Study], names: Sequence[str]) -> list[Study]:
    """Return the studies that are named, in the order of the list; all where none is.

    Raises
    ------
    InputError
        A name is not in the list.
    """
    known, faults = [study.name for study in studies], Faults()
    for name in names:
        if name not in known:
            faults.add("--studies", name, ", ".join(known), nearest(name, known))
    faults.raise_if_any()
    return [study for study in studies if study.name in names or not names]


def _text_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError.one(path, error, f"a tab-separated table of {', '.join(columns)}") from error
    if tuple(table.columns) != tuple(columns):
        raise InputError.one(path, f"columns {', '.join(table.columns)}", ", ".join(columns))
    return table


def cost(folder: str | os.PathLike) -> dict[str, float]:
    """Return what the jobs of a study took, by Snakemake's benchmark files below a folder.

    Returns
    -------
    ``jobs``; ``cpu_seconds`` of all together (the job's duration where its processor time was not caught);
    ``peak_mb``, the largest resident memory of one.
    """
    records = [
        json.loads(line)
        for path in sorted(Path(folder).rglob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()[-1:]
    ]
    memory = [record["max_rss"] for record in records if isinstance(record.get("max_rss"), int | float)]
    seconds = sum(float(record.get("cpu_time") or record["s"]) for record in records)
    return {"jobs": len(records), "cpu_seconds": round(seconds), "peak_mb": round(max(memory, default=0.0))}


# ------------------------------------------------------------------------------------------------- the one table


def joined(old: pd.DataFrame | None, new: pd.DataFrame) -> pd.DataFrame:
    """Put new scores in the place of a study's old ones; studies that were not run again keep theirs.

    So do submissions that the study was run without.

    Parameters
    ----------
    old
        The committed table, None where there is none yet.
    new
        That of what ran.

    Returns
    -------
    Numbers rounded to `DIGITS` significant digits, intervals still around their values.
    """
    rows = new if old is None else pd.concat([old.loc[_stays(old, new)], new])
    rows = check_metrics(rows.reset_index(drop=True))
    for name in NUMBERS:
        rows[name] = [float(f"{value:.{DIGITS}g}") for value in rows[name]]
    by = ["study", "stage", "task", "sample", "protocol", "panel", "metric", "method", "fold", "note"]
    return rows.sort_values(by, kind="stable", ignore_index=True)


def _stays(old: pd.DataFrame, new: pd.DataFrame) -> pd.Series:
    """Return which rows of the old table no row of the new one replaces."""
    key = ["study", "stage", "task", "method"]
    submitted = set(old.loc[old["note"].str.startswith(SUBMISSION), key].itertuples(index=False, name=None))
    lasting = submitted - set(new[key].itertuples(index=False, name=None))
    lasts = pd.Series([row in lasting for row in old[key].itertuples(index=False, name=None)], old.index, dtype=bool)
    return lasts | ~old["study"].isin(new["study"].unique())


def differences(old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    """Say which scores of the studies in both tables differ, timings left out; nothing where all agree."""
    common = set(old["study"]) & set(new["study"])
    key = ["study", "stage", "task", "sample", "protocol", "panel", "metric", "method", "fold", "note"]
    series = []
    for table in (old, new):
        rows = table.loc[table["study"].isin(common) & ~table["metric"].isin(TIMED)]
        series.append(rows.drop_duplicates(key).set_index(key)["value"])
    before, after = series[0].align(series[1])
    same = np.isclose(before, after, rtol=10.0**-DIGITS * 5, atol=0, equal_nan=True)
    return [
        f"{' '.join(filter(None, where[:-1]))}: {_number(before.iloc[at])} is now {_number(after.iloc[at])}"
        for at, where in enumerate(before.index)
        if not same[at]
    ]


def read_anchors(path: str | os.PathLike) -> pd.DataFrame:
    """Read the published numbers.

    Parameters
    ----------
    path
        Tab-separated: `ANCHOR_COLUMNS`; ``kind`` one of `KINDS`.

    Raises
    ------
    InputError
        A column is missing, a value is no number, or a task or kind is unknown.
    """
    table, faults = _text_table(Path(path), ANCHOR_COLUMNS), Faults()
    for line, row in enumerate(table.itertuples(index=False), 2):
        for column, words in (("task", TASKS), ("kind", tuple(KINDS))):
            word = getattr(row, column)
            if word not in words:
                faults.add(f"{path}, line {line}, column {column}", word, ", ".join(words), nearest(word, words))
        if math.isnan(pd.to_numeric(row.value, errors="coerce")):
            faults.add(f"{path}, line {line}, column value", row.value or "nothing", "a number")
    faults.raise_if_any()
    return table.astype({"value": float})


# ---------------------------------------------------------------------------------------------------- for readers


def render(metrics: pd.DataFrame, anchors: pd.DataFrame, figures: Iterable[str] = ()) -> str:
    """Return the page of tables (Markdown).

    Parameters
    ----------
    metrics
        The committed table.
    anchors
        Of `read_anchors`.
    figures
        Tasks that have a figure ``<task>.svg`` beside the page.

    Returns
    -------
    The same text for the same tables.
    """
    figures = set(figures)
    verdicts = _verdicts(metrics)
    lines = [
        "# Benchmark on real data",
        "",
        *textwrap.wrap(INTRODUCTION, WIDTH),
        "",
        *_lost(verdicts),
    ]
    for task, title in TITLES.items():
        lines += _section(task, title, metrics.loc[metrics["task"] == task], verdicts, anchors, task in figures)
    return "\n".join(lines).rstrip("\n") + "\n"


def _verdicts(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """Return `scores.judged` of each study, and whether the config selects the method that is judged."""
    found = []
    for study, rows in metrics.groupby("study"):
        marked = rows.loc[rows["note"].str.contains(r"\bdefault\b")]
        selected = set(zip(marked["stage"], marked["task"], marked["method"], strict=True))
        for entry in judged(rows):
            is_default = (entry["stage"], entry["task"], entry["method"]) in selected
            found.append(entry | {"study": study, "default": is_default})
    return found


def _lost(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how the methods that configs select stand beside their floors, the worst first."""
    groups: dict[str, list[str]] = {
        "Defaults that lost to a floor": [],
        "Defaults behind a floor by less than the 95 % interval tells": [],
        "Where the study uses the floor itself": [],
        "Defaults ahead of their floor by less than the 95 % interval tells": [],
        "Defaults that beat their floor": [],
    }
    lost, behind, used, ahead, won = groups.values()
    for entry in verdicts:
        if not entry["default"] or not entry["verdict"]:
            continue
        compared = against_floor(entry["value"], [entry["floor_value"]], entry["metric"])
        level = ahead if compared is not None and compared[1] == "better" else behind
        kinds = {LOST: lost, LEVEL: level, FLOOR_USED: used, BETTER: won}
        kinds[entry["verdict"]].append(_sentence(entry, compared))
    lines = ["## Defaults beside their floors", ""]
    for words, items in groups.items():
        lines += [f"{words}:", "", *items, ""] if items else [f"{words}: none.", ""]
    return lines


def _sentence(entry: Mapping[str, Any], compared: tuple[float, str] | None) -> str:
    title, panel = TITLES[entry["task"]], f", {entry['panel']}" if entry["panel"] else ""
    held_out = HELD_OUT[entry["protocol"]].removeprefix("nothing: ")
    text = f"- `{entry['study']}`, {title[:1].lower()}{title[1:]} ({held_out}{panel}): "
    text += f"`{entry['method']}` {_number(entry['value'])}"
    if compared is not None:
        difference, word = compared
        by = "equal" if word == "equal" else f"{word} by {_number(abs(difference))}"
        text += f", `{entry['floor']}` {_number(entry['floor_value'])}, {by}"
    return f"{text} (`{entry['metric']}`)"


def _section(
    task: str,
    title: str,
    rows: pd.DataFrame,
    verdicts: Sequence[Mapping[str, Any]],
    anchors: pd.DataFrame,
    figure: bool,
) -> list[str]:
    """Return the part of the page on one task; nothing where it was neither scored nor has anchors."""
    own = [entry for entry in verdicts if entry["task"] == task]
    quoted = anchors.loc[anchors["task"] == task]
    if not own and quoted.empty:
        return []
    lines = [f"## {title}", ""]
    for metric in dict.fromkeys(entry["metric"] for entry in own):
        lines += [f"{_measure(metric)}:", "", *_scores(rows, metric, own), ""]
    if not own:
        lines += ["No study that ran scores this task.", ""]
    lines += [f"![{title}]({task}.svg)", ""] if figure else []
    return lines + (_anchor_table(quoted) if len(quoted) else [])


def _measure(metric: str) -> str:
    better = "smaller" if metric.startswith(SMALLER_IS_BETTER) else "larger"
    name = MEASURES.get(metric, metric)
    return f"{name[:1].upper()}{name[1:]} (`{metric}`, {better} is better)"


def shown_rows(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of a metric that readers are shown: means over folds, and over sections, where there are any.

    Parameters
    ----------
    rows
        Of one task, in the form of the metrics table.
    """
    own = rows.loc[rows["metric"] == metric].copy()
    key = ["study", "stage", "protocol", "panel"]
    for column, extra in (("fold", ["sample"]), ("sample", [])):
        whole = own[column] == "all"
        groups = pd.MultiIndex.from_frame(own[key + extra])
        own = own.loc[whole | ~groups.isin(groups[whole])]
    return own


def _compared(rows: pd.DataFrame, metric: str, entries: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of a task that readers are shown, of what was judged by a metric."""
    own = shown_rows(rows, metric)
    key = ["study", "stage", "protocol", "panel"]
    judged_by_it = [tuple(entry[name] for name in key) for entry in entries if entry["metric"] == metric]
    return own.loc[pd.MultiIndex.from_frame(own[key]).isin(judged_by_it)]


def _scores(rows: pd.DataFrame, metric: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    own, timed = _compared(rows, metric, entries), _timings(rows)
    by_section = (own["sample"] != "all").any()
    costs = [name for name in COSTS.values() if timed[name].notna().any()]
    head = ["study", *(["section"] if by_section else []), "held out", "method", "value", "95 % interval", "n", *costs]
    lines = [_line(head), f"|{'---|' * len(head)}"]
    for (study, protocol, sample, panel), group in own.groupby(_GROUP, sort=True):
        first = [f"`{study}`{f' ({panel})' if panel else ''}", *([sample] if by_section else []), HELD_OUT[protocol]]
        for row in sorted(group.to_dict("records"), key=lambda row: _rank(row, metric)):
            interval = "" if math.isnan(row["low"]) else f"{_number(row['low'])} to {_number(row['high'])}"
            n = "" if pd.isna(row["n"]) else f"{int(row['n']):,}"
            spent = _spent(timed, row)
            cells = [*first, _method(row), _number(row["value"]), interval, n, *(spent[name] for name in costs)]
            lines.append(_line(cells))
            first = [""] * len(first)
    return lines


def _line(cells: Iterable[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _rank(row: Mapping[str, Any], metric: str) -> tuple:
    """Order floors first, then the bar, models and the ceiling, each from worse to better."""
    kind = row["method"].partition(":")[0]
    worse = -row["value"] if metric.startswith(SMALLER_IS_BETTER) else row["value"]
    return _KIND_ORDER.get(kind, _KIND_ORDER[""]), worse, row["method"], row["fold"], row["note"]


def _method(row: Mapping[str, Any]) -> str:
    name = f"`{row['method'].removeprefix('floor:')}`"
    if "default" in row["note"].replace(";", " ").split():
        name = f"**{name}**"
    kind = "*floor* " if is_floor(row["method"]) else "*submitted* " if row["note"].startswith(SUBMISSION) else ""
    return kind + name


def _timings(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean seconds and peak MB of each method, by study and protocol, NaN where they were not measured."""
    by = ["study", "stage", "protocol", "method"]
    means = rows.pivot_table(index=by, columns="metric", values="value", aggfunc="mean")
    return means.reindex(columns=list(COSTS)).rename(columns=COSTS)


def _spent(timed: pd.DataFrame, row: Mapping[str, Any]) -> dict[str, str]:
    spent = timed.loc[(row["study"], row["stage"], row["protocol"], row["method"])]
    return {
        name: "" if math.isnan(value) else f"{value:.2g}" if value < 10 else f"{value:,.0f}"
        for name, value in spent.items()
    }


def _anchor_table(anchors: pd.DataFrame) -> list[str]:
    """Return published numbers as a table; they were not rerun here and may be of other splits."""
    lines = ["Published, not rerun here; read data and split before comparing:", ""]
    lines += ["| data | metric | method | value | source | |", "|---|---|---|---|---|---|"]
    for row in anchors.itertuples(index=False):
        lines.append(_line([row.data, row.metric, row.method, _number(row.value), row.source, row.kind]))
    return [*lines, ""]


def _number(value: float) -> str:
    """Return a score with three decimals, fewer where it is large."""
    if math.isnan(value):
        return "none"
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


# -------------------------------------------------------------------------------------------------------- figures


def forest(metrics: pd.DataFrame, task: str, path: str | os.PathLike) -> bool:
    """Draw the scores of a task in the metric that judges it, floors beside methods, as svg.

    Parameters
    ----------
    metrics
        The committed table.
    task
        One of `TITLES`.
    path
        Where to.

    Returns
    -------
    Whether there was anything to draw.
    """
    entries = [entry for entry in _verdicts(metrics) if entry["task"] == task]
    if not entries:
        return False
    from histoweft.plotting import new_figure, save

    metric = entries[0]["metric"]
    own = _compared(metrics.loc[metrics["task"] == task], metric, entries)
    places, labels, at = [], [], 0.0
    fig, axes = new_figure(1, 1, panel=(6.4, 0.9 + 0.2 * (len(own) + own.groupby(_GROUP).ngroups)))
    axis = axes[0, 0]
    for (study, protocol, sample, panel), group in own.groupby(_GROUP, sort=True):
        about = ["" if sample in ("all", study) else sample, "" if protocol == "truth" else HELD_OUT[protocol], panel]
        words = ": ".join(filter(None, [study, ", ".join(filter(None, about))]))
        axis.text(0.01, at, words, transform=axis.get_yaxis_transform(), fontsize=7.5, fontweight="bold", va="center")
        at += 1
        for row in sorted(group.to_dict("records"), key=lambda row: _rank(row, metric)):
            _draw(axis, row, at)
            places.append(at)
            labels.append(row["method"].replace("floor:", "floor: "))
            at += 1
    axis.set_yticks(places, labels, fontsize=7)
    axis.set_ylim(at - 0.4, -0.8)
    axis.set_xlabel(f"{_measure(metric).replace('`', '')}\ngrey: floors; blue: default; orange: others", fontsize=8)
    axis.tick_params(axis="x", labelsize=7.5)
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    save(fig, path)
    return True


def _draw(axis: Any, row: Mapping[str, Any], at: float) -> None:
    floor, default = is_floor(row["method"]), "default" in row["note"].replace(";", " ").split()
    colour = "0.45" if floor else "#0072B2" if default else "#D55E00"
    if not math.isnan(row["low"]):
        axis.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=1.2, solid_capstyle="butt")
    axis.plot([row["value"]], [at], "s" if floor else "o", color=colour, markersize=4)
