"""What is held out of the reference: donors or batches where they allow it, else cells at random within types."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from histoweft.splits import Fold, audit, leave_groups_out

PATIENT, RANDOM = "patient", "random"
_COVERED = 0.9
"""Share of the cells whose type must be in two batches for batches to be held out."""


@dataclass(frozen=True)
class Plan:
    """Folds of the reference.

    Attributes
    ----------
    folds
        Each cell is tested once.
    protocol
        ``patient`` where batches are held out, else ``random``.
    note
        What was held out, in words, for the metrics table.
    """

    folds: list[Fold]
    protocol: str
    note: str


def plan_folds(codes: np.ndarray, groups: np.ndarray | None, n_folds: int, seed: int) -> Plan:
    """Choose folds.

    Parameters
    ----------
    codes
        Type of each cell.
    groups
        Donor or batch of each cell; None where none is known.
    n_folds
        Folds at most.
    seed
        Of the random folds.

    Returns
    -------
    Plan
        Whole batches are held out when at least nine tenths of the cells are of a type that two batches hold. Cells
        whose type no training batch of their fold holds cannot be predicted and count as errors.
    """
    if groups is not None and _held_by_two(codes, groups) >= _COVERED:
        n = pd.Series(groups).nunique()
        folds = leave_groups_out(groups, min(n_folds, n))
        audit(folds, len(codes), groups=groups)
        return Plan(folds, PATIENT, f"held out: whole batches ({n})")
    why = "no batches known" if groups is None else "types are not shared by batches"
    folds = stratified(codes, n_folds, seed)
    audit(folds, len(codes))
    return Plan(folds, RANDOM, f"held out: cells at random within types ({why}), which flatters")


def _held_by_two(codes: np.ndarray, groups: np.ndarray) -> float:
    """Return the share of cells whose type is found in at least two batches."""
    batches = pd.Series(groups).groupby(codes).transform("nunique")
    return float((batches >= 2).mean())


def stratified(codes: np.ndarray, n_folds: int, seed: int) -> list[Fold]:
    """Hold out cells at random, of each type as many in each fold, one more or less.

    Parameters
    ----------
    codes
        Type of each cell.
    n_folds
        Number of folds.
    seed
        Of the draw.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    # Cells of one type take turns; types start where the one before ended, so that small ones spread too.
    order = order[np.argsort(codes[order], kind="stable")]
    part = np.empty(len(codes), dtype=int)
    part[order] = np.arange(len(codes)) % n_folds
    rows = np.arange(len(codes))
    return [Fold(f"random_{i + 1}", rows[part != i], rows[part == i]) for i in range(n_folds)]


def inner(codes: np.ndarray, groups: np.ndarray | None, n_folds: int, seed: int) -> list[Fold]:
    """Cut training cells once more, to choose settings on; every type must be on the training side of each fold.

    Parameters
    ----------
    codes, groups
        Of the training cells.
    n_folds
        Folds at most.
    seed
        Of random folds.
    """
    if groups is not None and pd.Series(groups).nunique() > 1 and _held_by_two(codes, groups) == 1:
        found = leave_groups_out(groups, n_folds)
        if all(len(np.unique(codes[fold.train])) == len(np.unique(codes)) for fold in found):
            return found
    return stratified(codes, n_folds, seed)
