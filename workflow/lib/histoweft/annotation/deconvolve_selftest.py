"""Deconvolution tried out on spots of known composition, mixed from reference cells that the signatures never saw."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from histoweft.annotation import deconvolve_unexplained as unexplained
from histoweft.annotation.deconvolve import METHODS, NORMAL_95, POISSON, Fit, Options, Proportions, deconvolve, fit
from histoweft.annotation.deconvolve_signature import learn_signature
from histoweft.annotation.deconvolve_simulate import Spots, simulate_spots
from histoweft.annotation.folds import plan_folds
from histoweft.metrics import area_under_curve

LEFT_OUT_TYPES = 5
"""Types left out of the reference, one after the other, to see whether their spots stand out."""
CLEARLY = 0.2
"""Share of its cells from which on a spot counts as one with a missing type."""
_LEAST_SCALE = 1.0


@dataclass(frozen=True)
class Halves:
    """A reference cut in two: cells to learn from, and cells to mix.

    Attributes
    ----------
    train, test
        Row numbers. Types that one side lacks are in neither.
    types
        Numbers of the types that are left.
    protocol, note
        What was held out: see `folds.Plan`.
    """

    train: np.ndarray
    test: np.ndarray
    types: np.ndarray
    protocol: str
    note: str


def halve(codes: np.ndarray, groups: np.ndarray | None, seed: int) -> Halves:
    """Cut a reference: by batches where they share the types (at least two), else at random within types.

    Parameters
    ----------
    codes
        Type of each cell.
    groups
        Batch of each cell; None where none is known.
    seed
        Of a random cut.
    """
    plan = plan_folds(codes, groups, 2, seed)
    types, fold = max(
        ((np.intersect1d(codes[fold.train], codes[fold.test]), fold) for fold in plan.folds),
        key=lambda pair: len(pair[0]),
    )
    if len(types) < 2 and groups is not None:
        return halve(codes, None, seed)
    sides = (rows[np.isin(codes[rows], types)] for rows in (fold.train, fold.test))
    return Halves(*sides, types, plan.protocol, plan.note)


@dataclass(frozen=True)
class Setting:
    """What the spots of a test are like.

    Attributes
    ----------
    cells_per_spot
        Fewest and most.
    totals
        Counts of the study's spots, any number of them.
    platform_sd
        See `deconvolve_simulate.simulate_spots`.
    n_spots
        Spots mixed.
    rate
        Share of explained spots that may be flagged.
    seed
        Of all draws.
    """

    cells_per_spot: tuple[int, int]
    totals: np.ndarray
    platform_sd: float
    n_spots: int
    rate: float
    seed: int

    def mix(self, counts: sp.csr_matrix, codes: np.ndarray, n_types: int, draw: int) -> Spots:
        """Mix cells into spots like those of the study; `draw` numbers the draws of one test."""
        seed = np.random.SeedSequence([self.seed, draw])
        totals = np.random.default_rng(seed).choice(self.totals, self.n_spots)
        return simulate_spots(
            counts, codes, n_types, self.n_spots, cells_per_spot=self.cells_per_spot, depth=totals,
            platform_sd=self.platform_sd, seed=int(seed.generate_state(1)[0]),
        )  # fmt: skip


@dataclass(frozen=True)
class Missing:
    """What came of leaving one type out of the reference.

    Attributes
    ----------
    left_out
        Number of the type.
    auroc
        Of the misfit: spots with at least a fifth of their cells of the type against spots without any.
    found, falsely
        Share of the two kinds that was flagged.
    n
        Spots of both kinds.
    """

    left_out: int
    auroc: float
    found: float
    falsely: float
    n: int


@dataclass
class Trial:
    """Mixed spots, and what the methods made of them.

    Attributes
    ----------
    types
        Numbers of the types that took part.
    truth
        spots x those types.
    found
        Method to proportions.
    seconds
        Method to time.
    known
        The mixed spots and the model of them, for the misfit.
    missing
        One entry for each type left out.
    protocol, note
        See `Halves`.
    """

    types: np.ndarray
    truth: np.ndarray
    found: dict[str, Proportions]
    seconds: dict[str, float]
    known: tuple[sp.csr_matrix, Fit]
    missing: list[Missing] = field(default_factory=list)
    protocol: str = ""
    note: str = ""


def run_trial(
    counts: sp.csr_matrix, codes: np.ndarray, halves: Halves, setting: Setting, options: Options, leave_out: bool = True
) -> Trial:
    """Learn signatures on one half of the reference and deconvolve spots mixed of the other.

    Parameters
    ----------
    counts
        cells x genes, raw counts.
    codes
        Type of each cell.
    halves
        See `halve`.
    setting
        What the spots are like.
    options
        Of the methods; each of `METHODS` is tried.
    leave_out
        Whether to leave types out in turn.
    """
    compact = np.searchsorted(halves.types, codes)
    k = len(halves.types)
    signature = learn_signature(counts[halves.train], compact[halves.train], k)
    spots = setting.mix(counts[halves.test], compact[halves.test], k, 0)
    start = time.perf_counter()
    model = fit(spots.counts, signature, options)
    fitting = time.perf_counter() - start
    found, seconds = {}, {}
    for method in METHODS:
        start = time.perf_counter()
        found[method] = deconvolve(spots.counts, signature, replace(options, method=method), model)
        seconds[method] = time.perf_counter() - start + (fitting if method == POISSON else 0)
    trial = Trial(halves.types, spots.proportions, found, seconds, (spots.counts, model))
    trial.protocol, trial.note = halves.protocol, halves.note
    if leave_out and k > 2:
        chosen = np.unique(np.linspace(0, k - 1, min(k, LEFT_OUT_TYPES)).round().astype(int))
        tried = (_without(counts, compact, halves, int(code), k, setting, options) for code in chosen)
        trial.missing = [result for result in tried if result is not None]
    return trial


def _without(
    counts: sp.csr_matrix,
    codes: np.ndarray,
    halves: Halves,
    code: int,
    k: int,
    setting: Setting,
    options: Options,
) -> Missing | None:
    """Leave one of k types out of the signatures, and look for it in spots that hold it; None if few spots do."""
    other = np.delete(np.arange(k), code)
    train = halves.train[codes[halves.train] != code]
    explained = halves.test[codes[halves.test] != code]
    signature = learn_signature(counts[train], np.searchsorted(other, codes[train]), k - 1)
    known = setting.mix(counts[explained], codes[explained], k, 2 * code + 1).counts
    spots = setting.mix(counts[halves.test], codes[halves.test], k, 2 * code + 2)
    value, threshold = find_unexplained(
        spots.counts, fit(spots.counts, signature, options), known, fit(known, signature, options), setting
    )
    share = spots.proportions[:, code]
    present, absent = share >= CLEARLY, share == 0
    if min(present.sum(), absent.sum()) < 5:
        return None
    either = present | absent
    return Missing(
        int(halves.types[code]), area_under_curve(present[either], value[either]),
        float((value[present] > threshold).mean()), float((value[absent] > threshold).mean()), int(either.sum()),
    )  # fmt: skip


def find_unexplained(
    counts: sp.csr_matrix, model: Fit, known: sp.csr_matrix, known_model: Fit, setting: Setting
) -> tuple[np.ndarray, float]:
    """Return the misfit of each spot and the value that few spots of known types exceed; see `deconvolve_unexplained`.

    Parameters
    ----------
    counts, model
        The spots and their model.
    known, known_model
        Mixed spots of known types and their model.
    setting
        For its rate and seed.
    """
    directions = unexplained.learn_directions(counts, model.weights, model.noise, model.genes, setting.seed)
    own = unexplained.score(counts, model.weights, model.noise, directions)
    null = unexplained.score(known, known_model.weights, known_model.noise, directions)
    return unexplained.misfit(own, null, setting.rate)


def interval_scale(truth: np.ndarray, found: Proportions) -> float:
    """Say by what the standard errors must be multiplied for 95 % of intervals to hold the truth, at least 1.

    Parameters
    ----------
    truth
        spots x types.
    found
        With standard errors.
    """
    off = np.abs(truth - found.values)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(off <= 1e-9, 0.0, off / found.error)
    ratio = ratio[np.isfinite(ratio)]
    return max(float(np.quantile(ratio, 0.95)) / NORMAL_95, _LEAST_SCALE) if len(ratio) else _LEAST_SCALE
