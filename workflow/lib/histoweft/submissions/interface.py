"""What a submission gets and what it gives back.

A submission is one Python file that defines the function of its stage. Plain arrays go in and come out; nothing of the
workflow need be imported. See docs/submit_a_method.md.

``domains(sections, n_domains, seed, **options)``
    `sections` are `Section`. Gives a list of labels for each section.
``proportions(counts, genes, reference_counts, reference_genes, reference_types, seed, **options)``
    Gives one row a spot, one column a type.
``annotate(train_counts, genes, labels, batches, test_counts, seed, **options)``
    Gives labels, or labels and probabilities (one row a cell, one column a type).
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import Faults, InputError, nearest
from histoweft.submissions.declared import FUNCTIONS

_SUM = 0.01
"""How far proportions or probabilities of one row may be from adding up to 1."""


@dataclass(frozen=True)
class Section:
    """One section, as a submission of domains gets it.

    Attributes
    ----------
    name
        Of the sample.
    counts
        points x genes, raw counts; all sections have the same genes in the same order.
    genes
        Symbols, (genes,).
    barcodes
        Of the points, (points,).
    xy
        (points, 2); um where the size of a pixel is known, else the file's own units.
    platform
        As in the sample sheet: ``visium``, ``st``, ...
    """

    name: str
    counts: sp.csr_matrix
    genes: np.ndarray
    barcodes: np.ndarray
    xy: np.ndarray
    platform: str


@dataclass(frozen=True)
class Submission:
    """A method under its name.

    Attributes
    ----------
    stage, name
        As in the config.
    function
        That the file defines.
    options
        Of the config, passed on by name.
    """

    stage: str
    name: str
    function: Callable[..., Any]
    options: dict[str, Any]

    @property
    def where(self) -> str:
        """Return how messages call it."""
        return f"submission {self.name} ({self.stage})"

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, with the options.

        Raises
        ------
        InputError
            It imports what its environment lacks.
        """
        try:
            return self.function(*arguments, **self.options)
        except ModuleNotFoundError as error:
            raise _missing(self.where, error) from error


@dataclass
class Cost:
    """What the calls of a submission took.

    Attributes
    ----------
    seconds
        All calls together; reading the inputs and scoring do not count.
    calls
        How many there were.
    """

    seconds: float = 0.0
    calls: int = 0

    def of(self, submission: Submission, *arguments: Any) -> Any:
        """Call a submission and count its time."""
        start = time.perf_counter()
        found = submission(*arguments)
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return found

    @property
    def peak_mb(self) -> float:
        """Most memory that the process has held so far, MB; inputs and imports count too."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def load(stage: str, name: str, path: str | os.PathLike, options: dict[str, Any]) -> Submission:
    """Read a submission's file.

    Parameters
    ----------
    stage, name, options
        As in the config.
    path
        The Python file. Its folder is no place to import from: a submission is one file.

    Raises
    ------
    InputError
        The file cannot be read, imports what its environment lacks, defines no function of the stage's name, or that
        function does not know an option.
    """
    path = Path(path).expanduser().absolute()
    wanted = FUNCTIONS[stage]
    spec = importlib.util.spec_from_file_location(f"submission_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise _missing(str(path), error) from error
    except (OSError, SyntaxError) as error:
        raise InputError.one(path, error, "a Python file") from error
    function = getattr(module, wanted, None)
    if not callable(function):
        found = vars(module).items()
        defined = [key for key, one in found if inspect.isfunction(one) and one.__module__ == spec.name]
        found = f"no function {wanted!r} (there is {', '.join(defined) or 'none'})"
        hint = nearest(wanted, defined) or "docs/submit_a_method.md shows one."
        raise InputError.one(path, found, f"the function of the stage {stage}, {wanted}(...)", hint)
    _check_options(path, function, options)
    return Submission(stage, name, function, dict(options))


def _missing(where: str, error: ModuleNotFoundError) -> InputError:
    hint = "Name an environment that brings it (`environment`), and run with --use-conda."
    return InputError.one(where, f"no module {error.name!r} in {sys.prefix}", "what the submission imports", hint)


def _check_options(path: Path, function: Callable[..., Any], options: dict[str, Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return
    known = [one.name for one in parameters]
    faults = Faults()
    for option in options:
        if option not in known:
            expected = f"one of the parameters of {function.__name__}: {', '.join(known)}"
            faults.add(f"{path}: options", repr(option), expected, nearest(option, known))
    faults.raise_if_any()


# ------------------------------------------------------------------------------------- what comes back: domains


def check_domains(found: Any, sections: Sequence[Section], n_domains: int, where: str) -> np.ndarray:
    """Check the labels of domains and number them.

    Parameters
    ----------
    found
        What the submission gave.
    sections
        What it got.
    n_domains
        That were asked for; fewer are allowed, more are not.
    where
        For messages.

    Returns
    -------
    (points of all sections,), from 0; a label means the same in every section.

    Raises
    ------
    InputError
        Everything wrong with it.
    """
    try:
        parts = [np.asarray(part) for part in found]
    except (TypeError, ValueError) as error:
        raise InputError.one(where, error, f"a list of {len(sections)} arrays of labels") from error
    if len(parts) != len(sections):
        raise InputError.one(where, f"{len(parts)} entries", f"a list of {len(sections)} arrays, one for each section")
    faults = Faults()
    for part, section in zip(parts, sections, strict=True):
        at, n = f"{where}: section {section.name}", len(section.barcodes)
        if part.shape != (n,):
            faults.add(at, f"labels of shape {part.shape}", f"({n},), one label for each point")
        elif (lost := int(pd.isna(part).sum())) > 0:
            faults.add(at, f"{lost} points without a label", "a label for every point", "Empty points are no choice.")
    faults.raise_if_any()
    codes, names = pd.factorize(np.concatenate([part.astype(str) for part in parts]))
    if len(names) > n_domains:
        hint = "All methods are compared at one number of domains."
        raise InputError.one(where, f"{len(names)} different labels", f"{n_domains} at most (n_domains)", hint)
    return codes


# ------------------------------------------------------------------- what comes back: proportions, probabilities


def check_shares(found: Any, n: int, types: Sequence[str], where: str, ignored: np.ndarray | None = None) -> np.ndarray:
    """Check shares of types: proportions of spots, probabilities of cells.

    Parameters
    ----------
    found
        An array with the columns in the order of the sorted types, or a pandas.DataFrame with types as columns.
    n
        Rows wanted.
    types
        Names, sorted.
    where
        For messages.
    ignored
        Mask of rows that are not looked at, (n,).

    Returns
    -------
    (n, types), scaled such that every row adds up to 1; NaN in rows that are ignored.

    Raises
    ------
    InputError
        Everything wrong with it.
    """
    values = _columns(found, types, where)
    if values.shape != (n, len(types)):
        expected = f"({n}, {len(types)}): one row for each spot or cell, one column for each of {', '.join(types)}"
        raise InputError.one(where, f"an array of shape {values.shape}", expected)
    kept = np.ones(n, dtype=bool) if ignored is None else ~ignored
    faults = Faults()
    lost = ~np.isfinite(values).all(axis=1) & kept
    if lost.any():
        faults.add(where, f"{int(lost.sum())} rows with NaN or infinity (first: row {_first(lost)})", "finite numbers")
    low = (np.where(np.isfinite(values), values, 0) < -1e-6).any(axis=1) & kept
    if low.any():
        faults.add(where, f"{int(low.sum())} rows with negative values (first: row {_first(low)})", "0 or more")
    total = values.sum(axis=1)
    off = kept & ~lost & (np.abs(total - 1) > _SUM)
    if off.any():
        row = _first(off)
        found = f"{int(off.sum())} rows that do not add up to 1 (row {row}: {total[row]:.3g})"
        faults.add(where, found, "shares", "Divide each row by its sum.")
    faults.raise_if_any()
    values = np.clip(values, 0, None)
    return np.where(kept[:, None], values / np.where(kept, values.sum(axis=1), 1)[:, None], np.nan)


def _columns(found: Any, types: Sequence[str], where: str) -> np.ndarray:
    """Return shares as an array, the columns of a table in the order of the types."""
    if isinstance(found, pd.DataFrame):
        found = found.rename(columns=str)
        faults = Faults()
        for name in found.columns[~found.columns.isin(types)]:
            faults.add(f"{where}: column {name!r}", "no type of the reference", "", nearest(name, types))
        for name in sorted(set(types) - set(found.columns)):
            faults.add(where, f"no column {name!r}", "one for each type of the reference")
        faults.raise_if_any()
        found = found[list(types)]
    try:
        return np.array(found.toarray() if sp.issparse(found) else found, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError.one(where, error, "a table of numbers") from error


def _first(mask: np.ndarray) -> int:
    return int(mask.argmax())


# ---------------------------------------------------------------------------------- what comes back: annotation


def check_annotation(found: Any, n: int, types: Sequence[str], where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Check the labels of cells, and their probabilities where there are any.

    Parameters
    ----------
    found
        Labels, or labels and probabilities (see `check_shares`; None for none).
    n
        Cells.
    types
        Of the training cells, sorted.
    where
        For messages.

    Returns
    -------
    codes
        Number of each cell's type, (n,).
    probabilities
        (n, types); None where there are none.

    Raises
    ------
    InputError
        Everything wrong with it.
    """
    labels, shares = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    labels = np.asarray(labels)
    if labels.shape != (n,):
        hint = "To give probabilities too, return (labels, probabilities)."
        raise InputError.one(where, f"labels of shape {labels.shape}", f"({n},), one for each test cell", hint)
    codes = pd.Index(types).get_indexer(labels.astype(str))
    unknown = pd.unique(labels[codes < 0].astype(str))
    faults = Faults()
    for name in unknown[:5]:
        faults.add(f"{where}: labels", repr(str(name)), "a label of the training cells", nearest(str(name), types))
    faults.raise_if_any()
    return codes, None if shares is None else check_shares(shares, n, types, f"{where}: probabilities")
