"""Cell types by a submission, on the held-out cells that our own models are scored on."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import scipy.sparse as sp

from histoweft.annotation import score
from histoweft.annotation.calibrate import cross_fitted
from histoweft.annotation.heldout import HeldOut
from histoweft.annotation.names import LOGISTIC
from histoweft.annotation.score import Judged
from histoweft.annotation.summary import REFERENCE, Book
from histoweft.errors import InputError
from histoweft.io import CountsFile
from histoweft.submissions.interface import Cost, Submission, check_annotation
from histoweft.submissions.rows import cost_rows, marked

_LEAST = 1e-6
"""Probability below which all count alike: logarithms stay finite."""


def read_cells(path: str | os.PathLike, columns: np.ndarray, held_out: HeldOut) -> tuple[sp.csr_matrix, np.ndarray]:
    """Read raw counts of the reference cells that our own models were scored on, in that order.

    Parameters
    ----------
    path
        ``reference.h5ad``.
    columns
        Of the genes that the reference shares with the samples.
    held_out
        What one of our models says of the cells.

    Returns
    -------
    counts
        cells x shared genes.
    batches
        Batch of each cell; None where none is known.

    Raises
    ------
    InputError
        A cell is not in the file: it was made anew since.
    """
    with CountsFile(path) as counts:
        rows = counts.obs_names.get_indexer(held_out.barcodes)
        if (rows < 0).any():
            hint = "Run the workflow again: the reference has changed."
            raise InputError.one(path, f"no cell {str(held_out.barcodes[rows < 0][0])!r}", "the held-out cells", hint)
        wanted = np.zeros(counts.n_obs, dtype=bool)
        wanted[rows] = True
        parts = [chunk[wanted[span]][:, columns] for span, chunk in counts.chunks() if wanted[span].any()]
        obs = counts.obs()
    place = np.empty(len(wanted), dtype=int)
    place[wanted] = np.arange(len(rows))
    batches = obs["batch"].astype(str).to_numpy()[rows] if "batch" in obs else None
    return sp.vstack(parts, format="csr")[place[rows]], batches


def predict(
    submission: Submission,
    counts: sp.csr_matrix,
    genes: np.ndarray,
    batches: np.ndarray | None,
    held_out: HeldOut,
    seed: int,
    cost: Cost,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Let a submission predict each cell from the cells outside its fold.

    Parameters
    ----------
    submission
        See `interface.load`.
    counts, batches
        See `read_cells`.
    genes
        Names of the shared genes.
    held_out
        For the types and the folds.
    seed
        Passed on.
    cost
        Counts the calls.

    Returns
    -------
    codes
        Predicted type of each cell.
    probabilities
        cells x types; None where the submission gives none. Types without a training cell have 0.
    """
    codes = np.zeros(len(held_out.codes), dtype=int)
    shares: np.ndarray | None = np.zeros((len(codes), len(held_out.types)))
    names = np.array(held_out.types)
    for number, fold in enumerate(held_out.folds, 1):
        labels = names[held_out.codes[fold.train]]
        types, there = np.unique(labels), None if batches is None else batches[fold.train]
        found = cost.of(submission, counts[fold.train], genes, labels, there, counts[fold.test], seed)
        where = f"{submission.where}, fold {number} of {len(held_out.folds)}"
        said, probabilities = check_annotation(found, len(fold.test), list(types), where)
        of_type = np.searchsorted(names, types)
        codes[fold.test] = of_type[said]
        if probabilities is None:
            shares = None
        if shares is not None:
            shares[np.ix_(fold.test, of_type)] = probabilities
    return codes, shares


def judge(codes: np.ndarray, shares: np.ndarray | None, held_out: HeldOut, alpha: float) -> Judged:
    """Set predictions beside the truth.

    Parameters
    ----------
    codes, shares
        See `predict`. As those of our own models, probabilities of each fold get their temperature and the thresholds
        of their sets from the other folds.
    held_out
        For the truth, the folds and the batches.
    alpha
        Of the sets.
    """
    clusters = score.clusters_of(held_out)
    if shares is None:
        return Judged(held_out.codes, codes, held_out.types, np.ones(len(codes)), clusters=clusters)
    logits = np.log(np.maximum(shares, _LEAST)).astype(np.float32)
    doubt = cross_fitted(logits, held_out.codes, held_out.folds, alpha)
    rows = np.arange(len(codes))
    return Judged(
        held_out.codes, codes, held_out.types, doubt.probability[rows, codes], doubt.sets[rows, held_out.codes],
        doubt.sets.sum(axis=1), clusters,
    )  # fmt: skip


def run(
    submission: Submission,
    counts: sp.csr_matrix,
    genes: np.ndarray,
    batches: np.ndarray | None,
    held_out: HeldOut,
    *,
    study: str,
    alpha: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Run a submission on every fold, and score it.

    Parameters
    ----------
    submission, counts, genes, batches, held_out
        See `predict`; `held_out` is that of ``logistic``, which the gain is over.
    study
        Name.
    alpha
        Of the sets.
    seed
        Of the submission and of the bootstrap, whose samples are those of our own models.

    Returns
    -------
    Rows of the metrics table; without probabilities none on calibration and sets.
    """
    cost = Cost()
    codes, shares = predict(submission, counts, genes, batches, held_out, seed, cost)
    judged = judge(codes, shares, held_out, alpha)
    scores = {
        LOGISTIC: score.score(score.judge(held_out, alpha), seed),
        submission.name: score.score(judged, seed),
    }
    if shares is None:
        for part in (scores[submission.name].values, scores[submission.name].replicates):
            del part["ece"]
    book = Book(study, "")
    panel = f"types ({len(held_out.types)})"
    book.add_scores(
        submission.name, REFERENCE, held_out.protocol, judged, scores[submission.name], "types", held_out.note
    )
    book.add_gains(REFERENCE, held_out.protocol, scores, panel, len(codes))
    about = {
        "study": study, "stage": "annotation", "task": "cell_type", "method": submission.name, "sample": REFERENCE,
        "protocol": held_out.protocol, "n": len(codes), "panel": f"shared genes ({len(genes)})",
    }  # fmt: skip
    return marked(book.rows + cost_rows(cost, "fold", **about))
