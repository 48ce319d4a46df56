"""Deconvolution by a submission, tried on the very spots that our own methods are tried on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from histoweft.annotation.deconvolve import NNLS
from histoweft.annotation.deconvolve_inputs import Inputs
from histoweft.annotation.deconvolve_sample import prepare
from histoweft.annotation.deconvolve_score import MIXED, with_intervals
from histoweft.annotation.deconvolve_selftest import run_trial
from histoweft.metrics import metric_row
from histoweft.submissions.interface import Cost, Submission, check_shares
from histoweft.submissions.rows import cost_rows, marked


def run(
    submission: Submission,
    inputs: Inputs,
    options: Mapping[str, Any],
    *,
    study: str,
    sample: str,
    platform: str,
    seed: int,
) -> list[dict[str, Any]]:
    """Try a submission on spots mixed from reference cells, as deep as the sample's own.

    Parameters
    ----------
    submission
        See `interface.load`.
    inputs
        Counts of the sample and of the reference.
    options
        The section ``annotation.deconvolution`` of the config.
    study, sample, platform
        Names.
    seed
        Of every draw; with the stage's own, spots and bootstrap samples are those of our own methods.

    Returns
    -------
    Rows of the metrics table; ``rmse_gain`` is over least squares on the same spots.
    """
    ready = prepare(inputs, options, platform, seed)
    trial = run_trial(inputs.cells, inputs.codes, ready.halves, ready.setting, ready.options, leave_out=False)
    spots, train = trial.known[0], ready.halves.train
    types = [inputs.types[code] for code in trial.types]
    cost = Cost()
    labels = np.array(inputs.types)[inputs.codes[train]]
    found = cost.of(submission, spots.copy(), inputs.genes, inputs.cells[train], inputs.genes, labels, seed)
    empty = np.asarray(spots.sum(axis=1)).ravel() == 0
    shares = check_shares(found, len(empty), types, f"{submission.where}, mixed spots of {sample}", empty)
    about = {
        "study": study, "stage": "annotation", "task": "deconvolution", "sample": sample, "protocol": "truth",
        "n": len(empty), "panel": f"{len(types)} types",
    }  # fmt: skip
    about["method"] = submission.name
    scores = with_intervals(trial.truth, {submission.name: shares, NNLS: trial.found[NNLS].values}, seed)
    rows = [
        metric_row(**about, metric=metric, value=value, low=low, high=high, note=f"{MIXED}; {trial.note}")
        for metric, (value, low, high) in scores[submission.name].items()
    ]
    return marked(rows + cost_rows(cost, "call", **about))
