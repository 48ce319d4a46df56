"""One sample from counts to its table of compositions: the trial first, then the spots, then how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from histoweft.annotation import deconvolve_selftest as selftest
from histoweft.annotation.deconvolve import Fit, Options, Proportions, deconvolve, fit
from histoweft.annotation.deconvolve_inputs import Inputs
from histoweft.annotation.deconvolve_score import choose, trial_rows
from histoweft.annotation.deconvolve_signature import Signature, learn_signature
from histoweft.errors import InputError

CELLS_PER_SPOT = {"visium": (2, 15), "visium_hd": (1, 3), "st": (10, 40)}
"""Cells of the mixed spots, by platform: 55 um spots, 8 to 16 um bins, 100 um spots."""
OTHER_PLATFORMS = (1, 10)

MIXED_SPOTS = 400
_LARGEST_LOG_SD = 1.5


@dataclass(frozen=True)
class Result:
    """What is written of a sample.

    Attributes
    ----------
    table
        Index: barcodes. One column for each type; ``low:<type>`` and ``high:<type>``, the 95 % interval; ``misfit``,
        from 0; ``missing_type``, whether it is larger than known types make it; ``total``, counts in the shared genes.
    rows
        Metrics.
    facts
        Method, numbers of genes and spots, differences between platforms.
    """

    table: pd.DataFrame
    rows: list[dict[str, Any]]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Ready:
    """What a trial starts from.

    Attributes
    ----------
    options
        Of the methods.
    signature, model
        Of the whole reference, and fitted to the sample with it.
    halves, setting
        Of the reference, and of the spots that are mixed from one of them.
    """

    options: Options
    signature: Signature
    model: Fit
    halves: selftest.Halves
    setting: selftest.Setting


def prepare(inputs: Inputs, options: Mapping[str, Any], platform: str, seed: int) -> Ready:
    """Learn from a sample what the spots of its trial must be like; see `deconvolve_sample`."""
    wanted = Options(n_genes=options["genes"], cell_sizes=options["cell_sizes"], seed=seed)
    signature = learn_signature(inputs.cells, inputs.codes, len(inputs.types))
    model = fit(inputs.spots, signature, wanted)
    totals = np.asarray(inputs.spots.sum(axis=1)).ravel()
    setting = selftest.Setting(
        cells_per_spot(options["cells_per_spot"], platform), totals[totals > 0],
        min(model.noise.platform.log_sd, _LARGEST_LOG_SD), MIXED_SPOTS, options["missing_rate"], seed,
    )  # fmt: skip
    return Ready(wanted, signature, model, selftest.halve(inputs.codes, inputs.groups, seed), setting)


def deconvolve_sample(
    inputs: Inputs, options: Mapping[str, Any], *, study: str, sample: str, platform: str, seed: int
) -> Result:
    """Deconvolve a sample's spots.

    Parameters
    ----------
    inputs
        Counts of the sample and of the reference.
    options
        The section ``annotation.deconvolution`` of the config.
    study, sample
        Names.
    platform
        As in the sample sheet.
    seed
        Of every draw.
    """
    ready = prepare(inputs, options, platform, seed)
    wanted, signature, model, setting = ready.options, ready.signature, ready.model, ready.setting
    totals = np.asarray(inputs.spots.sum(axis=1)).ravel()
    trial = selftest.run_trial(inputs.cells, inputs.codes, ready.halves, setting, wanted)
    method = choose(options["method"], trial)
    found = deconvolve(inputs.spots, signature, Options(method, wanted.n_genes, wanted.cell_sizes, seed), model)
    tried, found = with_errors(trial, method, found)
    scale, coverage = scale_and_coverage(trial.truth, tried)
    misfit, threshold = selftest.find_unexplained(inputs.spots, model, *trial.known, setting)
    misfit = np.where(totals > 0, misfit, np.nan)
    table = proportions_table(inputs.barcodes, inputs.types, found, scale)
    table["misfit"], table["missing_type"] = misfit.astype(np.float32), misfit > threshold
    table["total"] = totals.astype(np.float32)
    rows = trial_rows(trial, study, sample, method, coverage, inputs.types, seed)
    facts = {
        "method": method, "types": inputs.types, "spots": len(table), "genes": int(inputs.spots.shape[1]),
        "informative_genes": len(model.genes), "platform_log_sd": model.noise.platform.log_sd,
        "interval_scale": scale, "misfit_threshold": threshold, "missing_type": int(table["missing_type"].sum()),
        "without_counts": int((totals == 0).sum()), "notes": inputs.notes,
        "matched": inputs.matched, "cautions": inputs.cautions,
    }  # fmt: skip
    return Result(table, rows, facts)


def cells_per_spot(given: Sequence[int], platform: str) -> tuple[int, int]:
    """Return the fewest and most cells of mixed spots: as the config says, else by platform.

    Raises
    ------
    InputError
        The config gives something else than two rising numbers.
    """
    if not given:
        return CELLS_PER_SPOT.get(platform, OTHER_PLATFORMS)
    if len(given) != 2 or given[0] > given[1]:
        where = "config: annotation.deconvolution.cells_per_spot"
        raise InputError.one(where, list(given), "the fewest and the most cells, e.g. [2, 15]", "Leave it empty ([]) "
                             "for the platform's own.")  # fmt: skip
    return given[0], given[1]


def with_errors(trial: selftest.Trial, method: str, found: Proportions) -> tuple[Proportions, Proportions]:
    """Give a method without standard errors those that it made in the trial.

    Returns
    -------
    The method's result of the trial and `found`, both with standard errors: where the method has none, each type's
    root mean squared error; the largest one for types that took no part.
    """
    tried = trial.found[method]
    if np.isfinite(tried.error).any():
        return tried, found
    off = np.sqrt(np.nanmean((tried.values - trial.truth) ** 2, axis=0))
    every = np.full(found.values.shape[1], off.max())
    every[trial.types] = off
    return (
        Proportions(tried.values, np.broadcast_to(off, tried.values.shape)),
        Proportions(found.values, np.where(np.isfinite(found.values), every, np.nan)),
    )


def scale_and_coverage(truth: np.ndarray, tried: Proportions) -> tuple[float, float]:
    """Scale the standard errors on the trial's spots.

    Returns
    -------
    The scale from all spots; and the share of intervals that hold the truth on every other spot, with the scale found
    on the rest.
    """
    even = Proportions(tried.values[::2], tried.error[::2])
    odd = Proportions(tried.values[1::2], tried.error[1::2])
    low, high = odd.interval(selftest.interval_scale(truth[::2], even))
    known = np.isfinite(low)
    # A proportion of 0.1 and the end of an interval at 0.1 may differ in their last bits.
    held = (truth[1::2] >= low - 1e-9) & (truth[1::2] <= high + 1e-9)
    return selftest.interval_scale(truth, tried), float(held[known].mean())


def proportions_table(barcodes: np.ndarray, types: Sequence[str], found: Proportions, scale: float) -> pd.DataFrame:
    """Put proportions and intervals under their names, float32."""
    low, high = found.interval(scale)
    parts = {"": found.values, "low:": low, "high:": high}
    columns = {
        f"{prefix}{name}": values[:, k].astype(np.float32)
        for prefix, values in parts.items()
        for k, name in enumerate(types)
    }
    return pd.DataFrame(columns, index=pd.Index(barcodes, name="barcode"))
