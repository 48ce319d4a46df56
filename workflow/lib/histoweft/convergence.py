"""Solvers that stop before they settle say so here; the step that publishes their result collects what they said."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from histoweft.errors import HistoweftError

_log = logging.getLogger(__name__)

DENSE_VALUES = 25_000_000
"""Up to so many values a matrix is decomposed whole, where the iteration did not converge."""


def tell(sentence: str) -> None:
    """Say, without a full stop, that a solver did not settle."""
    _log.warning("%s", sentence)


def or_dense(
    iterate: Callable[[], Any],
    dense: Callable[[], Any],
    allowed: bool,
    refusal: str,
    sentence: str,
    told: Callable[[str], object] | None,
) -> Any:
    """Return what an ARPACK iteration finds; where it does not converge, what a dense decomposition does.

    Parameters
    ----------
    iterate, dense
        The two ways to the same result.
    allowed
        Whether the matrix is small enough for the dense one.
    refusal
        The error's words where it is not.
    sentence, told
        What is said, and to whom, where the dense one was taken.

    Raises
    ------
    HistoweftError
        The iteration does not converge, and the dense way is not allowed.
    """
    from scipy.sparse.linalg import ArpackError

    try:
        return iterate()
    except ArpackError as error:
        if not allowed:
            raise HistoweftError(refusal) from error
    if told is not None:
        told(sentence)
    return dense()


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.sentences: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.sentences[record.getMessage()] = None


@contextmanager
def collect(what: str) -> Iterator[list[str]]:
    """Collect what solvers tell inside the block, each sentence once.

    Parameters
    ----------
    what
        What is being solved, for the solvers of scikit-learn, which warn in words of their own.

    Yields
    ------
    A list that holds the sentences once the block has ended.
    """
    from sklearn.exceptions import ConvergenceWarning

    told: list[str] = []
    kept = _Kept()
    _log.addHandler(kept)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("default")
            warnings.simplefilter("always", ConvergenceWarning)
            yield told
    finally:
        _log.removeHandler(kept)
        told += kept.sentences
        stopped = [one for one in seen if issubclass(one.category, ConvergenceWarning)]
        if stopped:
            told.append(f"{what}: {len(stopped)} of its fits reached their limit of steps before they settled")
            _log.warning("%s", told[-1])
        for one in seen:
            if not issubclass(one.category, ConvergenceWarning):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def singular_vectors(
    operator, k: int, start: np.ndarray, whole: Callable[[], np.ndarray], what: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the k largest singular values with their vectors, largest first.

    Parameters
    ----------
    operator
        Of `scipy.sparse.linalg.LinearOperator`.
    start
        Of the iteration.
    whole
        Makes the matrix itself, for the case that the iteration does not converge.
    what
        What the components are of, for messages.

    Returns
    -------
    left, values, right
        rows x k, (k,), k x columns.

    Raises
    ------
    HistoweftError
        The iteration does not converge, and the matrix is too large to be decomposed whole.
    """
    from scipy.sparse.linalg import svds

    def dense() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        left, values, right = np.linalg.svd(whole(), full_matrices=False)
        return left[:, :k], values[:k], right[:k]

    left, values, right = or_dense(
        lambda: svds(operator, k=k, v0=start),
        dense,
        operator.shape[0] * operator.shape[1] <= DENSE_VALUES,
        f"{what}: {k} components of {operator.shape[0]:,} x {operator.shape[1]:,} values did not converge. "
        "Many directions are equally strong: ask for fewer components, or look for copies among the rows.",
        f"{what}: the iteration for {k} components did not converge, so all of them were computed",
        tell,
    )
    order = np.argsort(-values, kind="stable")
    return left[:, order], values[order], right[order]
