"""The part of a page that any stage fills by the same means: a verdict in words, figures and tables with captions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from histoweft.report.html import Html, caption, figure, joined, notice, paragraph, remark, section, slug, table

TITLES = {
    "atlas": "Voxel atlas",
    "annotation": "Cell types",
    "deconvolution": "Cell types inside spots",
    "space": "Domains, niches and communication",
    "trajectory": "Trajectories and fates",
    "states": "Rare, transitional and persister cells",
    "cohort": "Patients",
}

MOST_ROWS = 30
"""Rows of a table that a page shows; the file has them all."""


def sections(shown: Mapping[str, Mapping[str, Any]], captions: Mapping[str, str]) -> Html:
    """Return one section for each stage.

    Parameters
    ----------
    shown
        Stage to what it shows: ``verdict`` (path of a JSON file with ``texts`` and ``warnings``; may be empty),
        ``figures`` and ``tables`` (lists of path and name of the caption).
    captions
        By their names.
    """
    return joined(_section(stage, parts, captions) for stage, parts in shown.items())


def warnings(shown: Mapping[str, Mapping[str, Any]]) -> list[Html]:
    """Return what the stages warn of, each linked to its section."""
    link = Html('<a href="#{}"><b>{}</b></a>: {}')
    return [
        link.format(slug(TITLES[stage]), stage, remark(text))
        for stage, parts in shown.items()
        for text in read_verdict(parts.get("verdict", "")).get("warnings", [])
    ]


def read_verdict(path: str) -> dict[str, Any]:
    """Read the verdict of a stage, empty without one."""
    return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}


def _section(stage: str, parts: Mapping[str, Any], captions: Mapping[str, str]) -> Html:
    said = read_verdict(parts.get("verdict", ""))
    texts = said.get("texts", [])
    texts = list(texts.values()) if isinstance(texts, Mapping) else list(texts)
    content = []
    if texts:
        kind = "warning" if said.get("warnings") else "plain"
        content.append(notice(kind, "What was found", [str(text) for text in texts]))
    content += [_figure(stage, path, name, captions) for path, name in parts.get("figures", [])]
    for path, name in parts.get("tables", []):
        content += _table(path, name, captions)
    return section(TITLES[stage], *content)


def _figure(stage: str, path: str, name: str, captions: Mapping[str, str]) -> Html:
    """Return a figure; the first sentence of its caption is what those are told who cannot see it."""
    words = captions[name]
    return figure(path, words.split(". ")[0], caption(words), anchor=f"figure-{stage}-{Path(path).stem}")


def _table(path: str, name: str, captions: Mapping[str, str]) -> list[Html]:
    import pandas as pd

    frame = pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])
    rows: Sequence[Any] = (
        frame.head(MOST_ROWS).astype(object).where(lambda cell: cell.notna(), None).to_numpy().tolist()
    )
    columns = [str(column).replace("_", " ") for column in frame.columns]
    more = f"The first {len(rows)} of {len(frame):,} rows of {Path(path).name}. " if len(frame) > len(rows) else ""
    shown = table(columns, rows, tall=len(rows) > 20, empty="Nothing to show.")
    return [shown, caption(captions[name]), paragraph(more, kind="quiet") if more else Html("")]
