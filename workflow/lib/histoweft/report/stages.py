"""The part of a page that any stage fills by the same means: a verdict in words, figures and tables with captions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from histoweft import gaps
from histoweft.report import trace
from histoweft.report.facts import FROM_IMAGE_TITLE
from histoweft.report.html import (
    Html,
    caption,
    figure,
    folded,
    joined,
    missing,
    notice,
    paragraph,
    portable,
    section,
    slug,
    table,
)
from histoweft.report.scores import HELD_OUT

INTEGRATION_TITLE = "Integration"

TITLES = {
    "integration": INTEGRATION_TITLE,
    "histology": FROM_IMAGE_TITLE,
    "atlas": "Voxel atlas",
    "annotation": "Cell types",
    "deconvolution": "Cell types inside spots",
    "space": "Domains, niches and communication",
    "trajectory": "Trajectories and fates",
    "states": "Rare, transitional and persister cells",
    "cohort": "Patients",
}

ANSWERING = {
    "space": r"^Domains against|^Niches, .*:|spatially variable|ligand-receptor",
    "annotation": r"reaches a macro|^Refused",
    "deconvolution": r"^Deconvolution|are flagged",
    "trajectory": r"macrostates|expected order|expected ends",
    "states": r"^Persister (candidates|share)|[Rr]are population (in|of)",
    "cohort": r"^Response|^Nothing is predicted|differ \(|floors:|less",
    "histology": "",
    "atlas": "",
    "integration": "",
}
"""Stage, in the order of the answers -> what a sentence of its verdict holds that answers what the study asked.

The others stand in the stage's section; where none does, or nothing is looked for, the first of them answer.
"""

MOST_SENTENCES = 4
"""Of a stage, among the answers."""

MOST_ROWS = 30
"""Rows of a table that a page shows; the file has them all."""

OPEN_ROWS = 8
"""Rows up to which a table is open on the page; a longer one unfolds."""


def sections(
    shown: Mapping[str, Mapping[str, Any]],
    captions: Mapping[str, str],
    traced: Mapping[str, Mapping[str, Any]],
) -> Html:
    """Return one section for each stage.

    Parameters
    ----------
    shown
        Stage to what it shows: ``verdict`` (path of a JSON file with ``texts`` and ``warnings``; may be empty),
        ``figures`` and ``tables`` (lists of path and name of the caption).
    captions
        By their names.
    traced
        Of `trace.addresses`.
    """
    return joined(_section(stage, parts, captions, traced) for stage, parts in shown.items())


def warnings(shown: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return what the stages warn of: pairs of stage and sentence."""
    return [
        (stage, str(text))
        for stage, parts in shown.items()
        for text in read_verdict(parts.get("verdict", "")).get("warnings", [])
    ]


def anchor(stage: str) -> str:
    """Return the name of a stage's section on both pages."""
    return slug(TITLES[stage])


def link(stage: str, words: str = "") -> Html:
    """Return a link to the section of a stage."""
    return Html('<a href="#{}"><b>{}</b></a>').format(anchor(stage), words or stage)


def answers(verdicts: Mapping[str, str]) -> Html:
    """Return what was found, a short paragraph for each stage, linked to its section.

    Parameters
    ----------
    verdicts
        Stage to the path of its verdict (may be empty).
    """
    entries = []
    for stage in (stage for stage in ANSWERING if verdicts.get(stage)):
        texts = _texts(read_verdict(verdicts[stage]))
        if texts:
            chosen, left = _answering(stage, texts)
            more = Html(' <a class="more" href="#{}">{} more</a>').format(anchor(stage), left) if left else ""
            said = [*(text[:1].upper() + text[1:] for text in chosen), more]
            entries.append(
                Html("<div><dt>{}</dt><dd>{}</dd></div>").format(link(stage, TITLES[stage]), joined(said, " "))
            )
    return section("Answers", Html('<dl class="answers">{}</dl>').format(joined(entries))) if entries else Html("")


def _texts(said: Mapping[str, Any]) -> list[str]:
    """Return the sentences of a verdict, whichever way it holds them."""
    texts = said.get("texts", [said["text"]] if said.get("text") else [])
    if isinstance(texts, Mapping):
        return [f"With {HELD_OUT.get(name, name)} held out, {text}" for name, text in texts.items()]
    return [str(text) for text in texts]


def _answering(stage: str, texts: Sequence[str]) -> tuple[list[str], int]:
    """Return the sentences that answer, and how many are left."""
    pattern = ANSWERING[stage]
    chosen = [text for text in texts if pattern and re.search(pattern, text)] or list(texts[:2])
    chosen = chosen[:MOST_SENTENCES]
    return chosen, len(texts) - len(chosen)


def read_verdict(path: str) -> dict[str, Any]:
    """Read the verdict of a stage, empty without one."""
    if path and (gap := gaps.of(path)):
        return {"warnings": [gap.words] if gap.failed else [], "not_computed": [gap.words]}
    return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}


def _section(
    stage: str, parts: Mapping[str, Any], captions: Mapping[str, str], traced: Mapping[str, Mapping[str, Any]]
) -> Html:
    said = read_verdict(parts.get("verdict", ""))
    content = []
    if said.get("not_computed"):
        content.append(notice("absent", "", [portable(text) for text in said["not_computed"]]))
    if texts := _texts(said):
        content += [notice("plain", "What was found", texts), trace.line(parts["verdict"], traced)]
    if cautions := said.get("warnings"):
        content.append(notice("warning", "With care", [str(text) for text in cautions]))
    content += [_figure(stage, path, name, captions, traced) for path, name in parts.get("figures", [])]
    for path, name in parts.get("tables", []):
        content += _table(path, name, captions, traced)
    return section(TITLES[stage], *content)


def _figure(
    stage: str, path: str, name: str, captions: Mapping[str, str], traced: Mapping[str, Mapping[str, Any]]
) -> Html:
    """Return a figure; the first sentence of its caption is what those are told who cannot see it."""
    words = captions[name]
    return figure(
        path,
        _first_sentence(words),
        caption(words),
        anchor=f"figure-{stage}-{Path(path).stem}",
        source=trace.line(path, traced),
    )


def _table(path: str, name: str, captions: Mapping[str, str], traced: Mapping[str, Mapping[str, Any]]) -> list[Html]:
    import pandas as pd

    if gap := gaps.of(path):
        return [missing(gap, _first_sentence(captions[name]))]
    frame = pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])
    rows: Sequence[Any] = (
        frame.head(MOST_ROWS).astype(object).where(lambda cell: cell.notna(), None).to_numpy().tolist()
    )
    columns = [str(column).replace("_", " ") for column in frame.columns]
    more = f"The first {len(rows)} of {len(frame):,} rows of {Path(path).name}. " if len(frame) > len(rows) else ""
    shown = table(columns, rows, tall=len(rows) > 20, empty="Nothing to show.")
    words = [caption(captions[name]), paragraph(more, kind="quiet") if more else Html("")]
    content = [shown, *words, trace.line(path, traced)]
    if len(rows) <= OPEN_ROWS:
        return content
    return [folded(f"{_first_sentence(captions[name])} ({len(frame):,} rows)", *content)]


def _first_sentence(words: str) -> str:
    """Return what a caption says first, without its full stop."""
    return " ".join(re.split(r"\.\s", words, maxsplit=1)[0].split()).replace("``", "").rstrip(".")
