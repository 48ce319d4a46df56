"""Domains by a submission, scored as `histoweft.space.domain_scores` scores ours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd

from histoweft.io import CountsFile
from histoweft.space.domain_scores import expert_labels, partition_rows
from histoweft.space.graph import read_section
from histoweft.space.views import NEIGHBOURS, nearest, shared_genes
from histoweft.submissions.interface import Cost, Section, Submission, check_domains
from histoweft.submissions.rows import cost_rows, marked


def read_sections(
    paths: Mapping[str, str | os.PathLike],
) -> tuple[list[Section], dict[str, pd.Series], list[str]]:
    """Read the sections that the space stage works on.

    Parameters
    ----------
    paths
        Sample to its ``filtered.h5ad``.

    Returns
    -------
    sections
        On all genes that they share. Our own methods choose their genes from these.
    truth
        Sample to its expert labels; the submission never sees them.
    notes
        Why other labels are not scored against.
    """
    sections, observed = [], {}
    with ExitStack() as stack:
        opened = {sample: stack.enter_context(CountsFile(path)) for sample, path in paths.items()}
        genes, columns = shared_genes({sample: counts.var() for sample, counts in opened.items()})
        for (sample, counts), taken in zip(opened.items(), columns, strict=True):
            place, names = read_section(counts), counts.obs_names.to_numpy()
            matrix = counts.matrix()[:, taken].tocsr()
            sections.append(Section(sample, matrix, genes.to_numpy(), names, place.xy, place.platform))
            observed[sample] = counts.obs()
    near = [nearest(section.xy, max(NEIGHBOURS)) for section in sections]
    truth, notes = expert_labels(observed, near)
    return sections, truth, notes


def run(
    submission: Submission,
    sections: Sequence[Section],
    truth: Mapping[str, pd.Series],
    n: int,
    seeds: Sequence[int],
    study: str,
    panel: str,
) -> list[dict[str, Any]]:
    """Run a submission once for each seed, and score it.

    Parameters
    ----------
    submission
        See `interface.load`.
    sections, truth
        See `read_sections`.
    n
        Domains, as many as our own methods were asked for.
    seeds
        One run each.
    study
        Name.
    panel
        That the rows of our own methods bear: rows with another would stand in a table of their own.

    Returns
    -------
    Rows of the metrics table; only time and memory where no section has expert labels.
    """
    cost, runs = Cost(), []
    for seed in seeds:
        found = cost.of(submission, list(sections), n, seed)
        runs.append(check_domains(found, sections, n, submission.where))
    ends = np.cumsum([len(section.barcodes) for section in sections])
    rows: list[dict[str, Any]] = []
    if truth:
        spans = {one.name: slice(end - len(one.barcodes), end) for one, end in zip(sections, ends, strict=True)}
        rows += partition_rows(spans, {submission.name: np.array(runs)}, truth, study, "", n, panel)
        offered = f"given all {len(sections[0].genes)} genes that the sections share"
        rows = [row | {"note": f"{row['note']}; {offered}"} for row in rows]
    about = {"study": study, "stage": "space", "task": "domains", "method": submission.name, "protocol": "truth"}
    sample = "all" if len(sections) > 1 else sections[0].name
    return marked(rows + cost_rows(cost, "seed", **about, sample=sample, n=int(ends[-1]), panel=panel))
