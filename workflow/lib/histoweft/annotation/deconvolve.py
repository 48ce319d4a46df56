"""Which cell types a spot holds, in what proportions, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from histoweft.annotation import deconvolve_poisson as poisson
from histoweft.annotation.deconvolve_signature import Signature, informative_genes
from histoweft.annotation.deconvolve_solve import solve_nonnegative
from histoweft.errors import InputError

POISSON, NNLS, MEAN = "poisson", "nnls", "mean"
METHODS = (POISSON, NNLS, MEAN)
"""The model, and two floors: least squares; the same for every spot, the types' shares in the pool of all spots."""

NORMAL_95 = 1.959964
_TARGET_SUM = 10_000
_RIDGE = 1e-6


@dataclass(frozen=True)
class Options:
    """How spots are deconvolved.

    Attributes
    ----------
    method
        Of `METHODS`.
    n_genes
        Informative genes used.
    cell_sizes
        Whether proportions are of cells (counts of a type over the counts of its cell) or of counts.
    seed
        Of the choice of spots from which differences between platforms are learned.
    """

    method: str = POISSON
    n_genes: int = 2_000
    cell_sizes: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """The Poisson model of some spots.

    Attributes
    ----------
    weights
        Counts that each type gave, spots x types.
    genes
        Informative genes, numbers.
    chosen, noise
        Mean and variance over these genes, and over all shared genes.
    """

    weights: np.ndarray
    genes: np.ndarray
    chosen: poisson.Noise
    noise: poisson.Noise


@dataclass(frozen=True)
class Proportions:
    """Composition of spots.

    Attributes
    ----------
    values
        spots x types, rows add up to 1; NaN for a spot without a count in an informative gene.
    error
        Standard error, spots x types; NaN from a method without one.
    """

    values: np.ndarray
    error: np.ndarray

    def interval(self, scale: float | np.ndarray = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper end of the 95 % interval, the standard error multiplied by `scale`."""
        reach = NORMAL_95 * scale * self.error
        return np.clip(self.values - reach, 0, 1), np.clip(self.values + reach, 0, 1)


def deconvolve(counts: sp.csr_matrix, signature: Signature, options: Options, model: Fit | None = None) -> Proportions:
    """Say what spots are composed of.

    Parameters
    ----------
    counts
        spots x shared genes, raw counts.
    signature
        Of the same genes.
    options
        See `Options`.
    model
        From `fit`, where there is one already; made here for the method that needs it.

    Raises
    ------
    InputError
        No spot has a count in a shared gene, or the method is unknown.
    """
    if options.method not in METHODS:
        raise InputError.one("deconvolution: method", repr(options.method), ", ".join(METHODS))
    if options.method == POISSON:
        model = model or fit(counts, signature, options)
        return Proportions(_shares(model.weights, signature, options), _errors(model, signature, options))
    totals = _totals(counts)
    genes = _genes(totals, signature, options)
    weights = _least_squares(counts[:, genes], totals, signature.take(genes))
    values = _shares(weights, signature, options)
    if options.method == MEAN:
        values = np.where(np.isnan(values), np.nan, np.nanmean(values, axis=0))
    return Proportions(values, np.full_like(values, np.nan))


def fit(counts: sp.csr_matrix, signature: Signature, options: Options) -> Fit:
    """Fit the Poisson model on the informative genes, then say what it foretells of all genes.

    Parameters
    ----------
    counts, signature, options
        See `deconvolve`.
    """
    genes = _genes(_totals(counts), signature, options)
    known, some = signature.take(genes), counts[:, genes].tocsr()
    platform = poisson.learn_platform(some, known, options.seed)
    chosen = poisson.Noise(known, platform)
    weights = poisson.fit_weights(some, chosen)
    factor = poisson.update_factor(counts, weights, signature, platform).factor
    # The factors that the weights were found with stay as they are.
    factor[genes] = platform.factor
    return Fit(weights, genes, chosen, poisson.Noise(signature, replace(platform, factor=factor)))


def _totals(counts: sp.csr_matrix) -> np.ndarray:
    totals = np.asarray(counts.sum(axis=1)).ravel()
    if not (totals > 0).any():
        raise InputError.one("deconvolution", "no spot with a count in a gene of the reference", "counts to explain")
    return totals


def _genes(totals: np.ndarray, signature: Signature, options: Options) -> np.ndarray:
    return informative_genes(signature, options.n_genes, float(np.median(totals[totals > 0])))


def _least_squares(counts: sp.csr_matrix, totals: np.ndarray, signature: Signature) -> np.ndarray:
    """Fit spots scaled to one depth by types, each gene divided by the root of its mean; spots x types.

    Of the scalings tried (none, unit variance, this one) the one that errs least on mixed spots: a floor should be hard
    to beat.
    """
    scaled = sp.diags(np.divide(_TARGET_SUM, totals, out=np.zeros(len(totals)), where=totals > 0)) @ counts
    axes = signature.rates * _TARGET_SUM
    importance = 1 / (np.asarray(scaled.mean(axis=0)).ravel() + axes.mean(axis=0))
    hessian = (axes * importance) @ axes.T
    linear = np.asarray(scaled @ (axes * importance).T)
    return solve_nonnegative(hessian[None], linear)[0]


def _shares(weights: np.ndarray, signature: Signature, options: Options) -> np.ndarray:
    cells = weights / signature.sizes if options.cell_sizes else weights
    total = cells.sum(axis=1, keepdims=True)
    return np.divide(cells, total, out=np.full_like(cells, np.nan), where=total > 0)


def _errors(model: Fit, signature: Signature, options: Options) -> np.ndarray:
    """Carry the inverse of the information over to proportions (delta method).

    Where proportions are of cells, the counts of few cells tell their number the less exactly, the more cells of one
    type differ in their counts.
    """
    size = signature.sizes if options.cell_sizes else np.ones(len(signature.sizes))
    share_caught = model.chosen.platform.cell_share if options.cell_sizes else 0.0
    error = np.full_like(model.weights, np.nan)
    for rows, information in poisson.information(model.weights, model.chosen):
        cells = model.weights[rows] / size
        seen = cells.sum(axis=1) > 0
        between = share_caught * cells[seen] * signature.size_variation
        error[rows][seen] = _share_errors(information[seen], cells[seen], size, between)
    return error


def _share_errors(information: np.ndarray, cells: np.ndarray, size: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Return the standard errors of shares of cells; `between` is added to the variance of each type's cells."""
    k = len(size)
    scale = np.sqrt(np.maximum(np.diagonal(information, axis1=1, axis2=2), 1e-300))
    outer = scale[:, :, None] * scale[:, None, :]
    covariance = np.linalg.inv(information / outer + _RIDGE * np.eye(k)) / outer / np.outer(size, size)
    covariance[:, np.arange(k), np.arange(k)] += between
    total = cells.sum(axis=1, keepdims=True)
    share, rows = cells / total, covariance.sum(axis=2)
    variance = np.diagonal(covariance, axis1=1, axis2=2) - 2 * share * rows
    variance = variance + share**2 * rows.sum(axis=1, keepdims=True)
    return np.sqrt(np.maximum(variance, 0)) / total
