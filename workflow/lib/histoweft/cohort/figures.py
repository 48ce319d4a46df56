"""Pictures of a cohort: scores beside floors, calibration, composition, differences, markers, targets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.cohort import performance
from histoweft.cohort.contrasts import Groups
from histoweft.cohort.prediction import FLOOR, Prediction, Task, score_groups
from histoweft.cohort.targets import EVIDENCE
from histoweft.plotting import category_legend, new_figure, save, shared_colours, tissue

FIRST, SECOND, GREY = "#0072b2", "#d55e00", "#8a8a8a"
_MOST_BARS = 60
_ROWS = 20


def _plain(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def message(text: str, out: str | os.PathLike) -> None:
    """Write a picture that says why there is none."""
    import textwrap

    fig, axes = new_figure(1, 1, panel=(6.0, 1.8))
    axes[0, 0].set_axis_off()
    axes[0, 0].text(0.5, 0.5, "\n".join(textwrap.wrap(text, 80)), ha="center", va="center", color="#555555", fontsize=9)
    save(fig, out)


# ---------------------------------------------------------------------------------------------------- prediction


def scores_figure(metrics: pd.DataFrame, default: str, out: str | os.PathLike) -> None:
    """Draw AUROC and average precision of every method with intervals; models above, floors below, best first.

    Parameters
    ----------
    metrics
        Rows of the metrics table.
    default
        The configured model.
    out
        Picture to write.
    """
    rows = metrics[metrics["fold"].astype(str) == "all"]
    aurocs = rows[rows["metric"] == "auroc"].set_index("method")
    floor = aurocs.index.str.startswith(FLOOR)
    order = [*aurocs[~floor].sort_values("value").index[::-1], *aurocs[floor].sort_values("value").index[::-1]]
    height = 1.0 + 0.24 * len(order)
    own = metrics[(metrics["metric"] == "auroc") & (metrics["fold"].astype(str) != "all")]
    fig, axes = new_figure(3 if len(own) else 2, 1, panel=(4.0, height))
    n = int(aurocs["n"].iloc[0])
    for ax, metric, title in zip(axes.flat, ("auroc", "auprc"), ("AUROC", "average precision")):
        _forest(ax, rows[rows["metric"] == metric].set_index("method"), order, default)
        ax.set_xlabel(f"{title}, n = {n} patients", fontsize=9)
    axes.flat[0].axvline(0.5, color="#bbbbbb", lw=1, zorder=0)
    axes.flat[1].set_yticklabels([])
    if len(own):
        _by_cohort(axes.flat[2], own, order)
    save(fig, out)


def _forest(ax: Any, table: pd.DataFrame, order: Sequence[str], default: str) -> None:
    for at, method in enumerate(order):
        if method not in table.index:
            continue
        row = table.loc[method]
        colour = GREY if method.startswith(FLOOR) else (SECOND if method == default else FIRST)
        ax.plot([row["low"], row["high"]], [at, at], color=colour, lw=1.5)
        ax.plot(row["value"], at, "o", color=colour, ms=5)
    ax.set_yticks(range(len(order)), [name.replace(FLOOR, "floor: ") for name in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    _plain(ax)


def _by_cohort(ax: Any, own: pd.DataFrame, order: Sequence[str]) -> None:
    """Draw each held-out cohort's own AUROC."""
    table = own.pivot_table(index="method", columns="fold", values="value").reindex(order)
    sizes = own.groupby("fold")["n"].first()
    drawn = ax.imshow(table.to_numpy(), cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(table.to_numpy()):
        dark = abs(value - 0.5) > 0.32
        ax.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
    ax.set_xticks(range(table.shape[1]), [f"{name}\nn = {int(sizes[name])}" for name in table], fontsize=8)
    ax.set_yticks([])
    ax.set_title("AUROC in each held-out cohort", fontsize=9)
    drawn.set_clim(0, 1)


def calibration_figure(task: Task, predictions: Mapping[str, Prediction], out: str | os.PathLike) -> None:
    """Draw observed against predicted share of responders, by bins of equally many patients; models only."""
    shown = {k: v for k, v in predictions.items() if v.probability is not None and not k.startswith(FLOOR)}
    positive = task.positive == 1
    fig, axes = new_figure(len(shown), 1, panel=(3.6, 3.6))
    for ax, (name, one) in zip(axes.flat, shown.items()):
        bins = performance.reliability(positive, one.probability)
        ax.plot([0, 1], [0, 1], color="#bbbbbb", lw=1)
        ax.plot([b[0] for b in bins], [b[1] for b in bins], "-o", color=FIRST, ms=5)
        for x, y, size in bins:
            ax.annotate(f"{size}", (x, y), xytext=(4, -9), textcoords="offset points", fontsize=7, color=GREY)
        slope = performance.calibration_slope(positive, one.probability, score_groups(task))
        error = performance.expected_calibration_error(positive, one.probability)
        ax.set_title(f"{name}: slope {slope:.2f}, error {error:.2f}, n = {len(positive)}", fontsize=9)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted chance of response", ylabel="observed share")
        _plain(ax)
    save(fig, out)


# ---------------------------------------------------------------------------------------------- microenvironment


def composition_figure(
    table: pd.DataFrame, prefix: str, groups: pd.Series, out: str | os.PathLike, title: str = ""
) -> None:
    """Draw what each patient's tissue is made of, patients ordered by group and by the first component.

    Parameters
    ----------
    table
        rows x features.
    prefix
        Kind of feature drawn: ``compartment`` or ``composition``, shares; or ``response_signature``, drawn as a map.
    groups
        Name of the group of each row (response or condition).
    out
        Picture to write.
    title
        Over the picture.
    """
    columns = [c for c in table if c.startswith(f"{prefix}:")]
    named = groups.fillna("not assessed").astype(str).replace("", "not named")
    order = pd.DataFrame({"group": pd.Categorical(named, named.unique()), "value": table[columns[0]]}, named.index)
    rows = order.sort_values(["group", "value"], kind="stable").index
    values, named = table.loc[rows, columns], named.loc[rows]
    width = float(np.clip(1.5 + 0.28 * len(rows), 4.0, 14.0))
    fig, axes = new_figure(1, 1, panel=(width, 3.6))
    ax = axes[0, 0]
    names = [c.partition(":")[2] for c in columns]
    if prefix.endswith("signature"):
        drawn = ax.imshow(values.to_numpy().T, cmap="RdBu_r", vmin=-2, vmax=2, aspect="auto", interpolation="nearest")
        ax.set_yticks(range(len(names)), names, fontsize=8)
        fig.colorbar(drawn, ax=ax, shrink=0.7, label="standardised score")
    else:
        colours, bottom = shared_colours(names), np.zeros(len(rows))
        for name, column in zip(names, columns):
            ax.bar(range(len(rows)), values[column], bottom=bottom, color=colours[name], width=0.85)
            bottom += values[column].fillna(0).to_numpy()
        category_legend(ax, colours)
        ax.set_ylabel("share of the tissue", fontsize=9)
        ax.set_ylim(0, 1)
    _group_brackets(ax, named)
    few = len(rows) <= _MOST_BARS
    ax.set_xticks(range(len(rows)) if few else [], list(rows) if few else [], rotation=90, fontsize=7)
    ax.set_xlim(-0.6, len(rows) - 0.4)
    ax.set_title(title, fontsize=10, pad=18)
    if not prefix.endswith("signature"):
        _plain(ax)
    save(fig, out)


def _group_brackets(ax: Any, named: pd.Series) -> None:
    """Name the groups above the bars, with a line between them."""
    sizes = named.groupby(named, sort=False).size()
    start = 0
    for name, size in sizes.items():
        ax.annotate(
            f"{name} (n = {size})", (start + size / 2 - 0.5, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", va="bottom", fontsize=8,
        )  # fmt: skip
        if start:
            ax.axvline(start - 0.5, color="black", lw=1)
        start += size


def effects_figure(tables: Sequence[tuple[str, pd.DataFrame]], out: str | os.PathLike) -> None:
    """Draw the largest differences between groups, in standard deviations of patients.

    Parameters
    ----------
    tables
        Title and `contrasts.COLUMNS`, one panel each.
    out
        Picture to write.
    """
    shown = [(title, table.head(_ROWS)) for title, table in tables if len(table)]
    if not shown:
        message("There are no two groups of patients to compare.", out)
        return
    rows = max(len(table) for _, table in shown)
    fig, axes = new_figure(len(shown), 1, panel=(5.6, 1.2 + 0.22 * rows))
    for ax, (title, table) in zip(axes.flat, shown):
        for at, row in enumerate(table.itertuples()):
            sure = np.isfinite(row.q) and row.q < 0.05
            colour = SECOND if sure else GREY
            ax.barh(at, row.standardised, color=colour, height=0.7)
            said = "no test" if not np.isfinite(row.p) else f"p {row.p:.2g}, q {row.q:.2g}"
            ax.annotate(
                said, (1.0, at), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
                fontsize=7, va="center",
            )  # fmt: skip
        ax.axvline(0, color="black", lw=0.8)
        ax.set_yticks(range(len(table)), table["feature"])
        ax.set_ylim(len(table) - 0.4, -0.6)
        ax.margins(x=0.08)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("difference, standard deviations of patients", fontsize=9)
        _plain(ax)
    save(fig, out)


# ------------------------------------------------------------------------------------------ biomarkers and targets


@dataclass
class Shown:
    """One section on which markers are drawn.

    Attributes
    ----------
    title
        Sample and group.
    xy
        (n, 2), full-resolution pixels.
    values
        (n, genes) log-normalised, genes of `names`.
    names
        Genes.
    options
        Of `plotting.tissue`.
    """

    title: str
    xy: np.ndarray
    values: sp.csc_matrix
    names: list[str]
    options: dict = field(default_factory=dict)

    def of(self, gene: str) -> np.ndarray | None:
        """Return the values of a gene, (n,); None where the section lacks it."""
        return self.values[:, [self.names.index(gene)]].toarray().ravel() if gene in self.names else None


def markers_figure(
    table: pd.DataFrame,
    values: pd.DataFrame,
    groups: Groups,
    sections: Sequence[Shown],
    out: str | os.PathLike,
) -> None:
    """Draw the first markers: across patients, and on the tissue of sections.

    Parameters
    ----------
    table
        See `biomarkers.COLUMNS`, the markers to draw.
    values
        rows x markers.
    groups
        Of the same rows.
    sections
        Where genes are drawn on the tissue; none for bulk.
    out
        Picture to write.
    """
    if table.empty:
        message("There are no two groups of patients to find markers between.", out)
        return
    columns = 2 + len(sections)
    fig, axes = new_figure(columns, len(table), panel=(3.4, 2.9))
    for line, row in zip(axes, table.itertuples()):
        _strip(line[0], values[row.marker], groups)
        kind, _, name = row.marker.rpartition(":")
        line[0].set_ylabel(f"{kind}\n{name}" if kind else f"{name}, log2 expression", fontsize=8)
        _words(line[1], row)
        shown = [section.of(row.marker) for section in sections]
        # One scale for all sections: they are there to be compared.
        top = max((float(own.max(initial=0)) for own in shown if own is not None), default=0.0) or None
        for ax, section, own in zip(line[2:], sections, shown):
            if own is None:
                ax.set_axis_off()
                continue
            title = f"{row.marker}, {section.title}"
            tissue(ax, section.xy, own, title=title, vmin=0, vmax=top, **section.options)
    save(fig, out)


def _strip(ax: Any, values: pd.Series, groups: Groups) -> None:
    """Draw a dot a patient, by cohort and group, with the medians."""
    ticks, labels = [], []
    at = 0.0
    several = groups.stratum.nunique() > 1
    for stratum in groups.stratum.unique():
        for answer, name, colour in ((0, groups.second, SECOND), (1, groups.first, FIRST)):
            own = values[((groups.stratum == stratum) & (groups.label == answer)).to_numpy()].dropna().to_numpy()
            if len(own):
                spread = 0.25 * (np.arange(len(own)) % 5 - 2) / 2
                ax.plot(at + spread, own, "o", color=colour, ms=3.5, alpha=0.8)
                ax.plot([at - 0.3, at + 0.3], [np.median(own)] * 2, color="black", lw=1.5)
            ticks.append(at)
            labels.append(f"{stratum} {name}" if several else f"{name}\nn = {len(own)}")
            at += 0.8
        at += 0.5
    ax.set_xticks(ticks, labels, rotation=90 if several else 0, fontsize=7)
    _plain(ax)


def _words(ax: Any, row: Any) -> None:
    """Say what the table knows of a marker."""
    ax.set_axis_off()
    lines = [f"{row.rank}. {row.marker} ({row.kind})", f"effect {row.effect:+.2f}"]
    if np.isfinite(row.low):
        lines[1] += f"  [{row.low:+.2f}, {row.high:+.2f}]"
    lines.append("no test possible" if not np.isfinite(row.p) else f"p {row.p:.2g}, q {row.q:.2g}")
    if np.isfinite(row.frequency):
        lines.append(f"selected in {row.frequency:.0%} of subsamples")
    if isinstance(row.where, str):
        lines.append(f"highest in {row.where} (log2 {row.where_effect:+.1f})")
    if np.isfinite(row.heterogeneity):
        lines.append(f"{row.cohorts:.0f} cohorts, I² {row.heterogeneity:.0%}")
    ax.text(0, 0.5, "\n".join(lines), va="center", fontsize=8, linespacing=1.6)


def targets_figure(table: pd.DataFrame, out: str | os.PathLike, most: int = 20) -> None:
    """Draw the lines of evidence behind the first targets.

    Parameters
    ----------
    table
        See `targets.COLUMNS`.
    out
        Picture to write.
    most
        Targets drawn.
    """
    shown = table.head(most)
    if shown.empty:
        message("No stage gives evidence of targets: states, niches, fates and responses are all absent.", out)
        return
    tested = shown[[f"{name}_p" for name in EVIDENCE]].notna().to_numpy().any()
    fig, axes = new_figure(1, 1, panel=(6.0, 1.2 + 0.26 * len(shown)))
    ax = axes[0, 0]
    for x, name in enumerate(EVIDENCE):
        effect = shown[f"{name}_effect"].astype(float).to_numpy()
        p = shown[f"{name}_p"].astype(float).to_numpy()
        size = (
            np.clip(-np.log10(np.clip(np.nan_to_num(p, nan=1), 1e-8, 1)), 0.4, 8) * 16
            if tested
            else np.full(len(p), 60)
        )
        there = np.isfinite(effect)
        if not there.any():
            ax.text(x, (len(shown) - 1) / 2, "not known", rotation=90, ha="center", va="center", color=GREY, fontsize=8)
            continue
        largest = max(np.abs(table[f"{name}_effect"].astype(float)).max(), 1e-9)
        ax.scatter(
            np.full(there.sum(), x), np.flatnonzero(there), s=size[there], c=effect[there] / largest, cmap="RdBu_r",
            vmin=-1, vmax=1, edgecolors="#444444", linewidths=0.5,
        )  # fmt: skip
    marks = [f"{'* ' if row.called else ''}{row.target}" for row in shown.itertuples()]
    ax.set_yticks(range(len(shown)), marks)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    words = ("in persister\ncells", "in the adverse\nniche", "drives the\npersister fate", "higher without\nresponse")
    ax.set_xticks(range(len(EVIDENCE)), words)
    ax.set_xlim(-0.5, len(EVIDENCE) - 0.5)
    called = int(table["called"].sum())
    how = "size: -log10 p" if tested else "too few patients for a p"
    ax.set_title(f"{called} called (*) of {len(table):,}; colour: effect (red up), {how}", fontsize=9)
    ax.grid(axis="y", color="#eeeeee", zorder=0)
    ax.set_axisbelow(True)
    _plain(ax)
    save(fig, out)
