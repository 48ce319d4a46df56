"""One trajectory: from cells to pseudotime, states and fate probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.graph.neighbours import neighbour_graph
from histoweft.trajectory import absorption, kernels, peer, pseudotime, spectrum, terminal, velocity
from histoweft.trajectory.cells import FEWEST_CELLS, Cells

FATE = "fate_"


@dataclass(frozen=True)
class Fit:
    """A trajectory over cells.

    Attributes
    ----------
    pseudotime, cytotrace
        (cells,): 0 at the root to 1, NaN where the graph does not lead; 0 differentiated to 1.
    root
        Number of the cell that pseudotime starts at.
    transitions
        cells x cells.
    states
        One row a macrostate: see `terminal.terminal_states`; and returning, of the ends and of states that are none for
        it: see `terminal.returning`.
    cores
        Cells at the core of each macrostate.
    fates
        Probabilities of the terminal states, in the order of `names`.
    eigenvalues
        Of the walk, slowest first.
    crispness
        Of the macrostates.
    first
        (cells,) number of the cell whose exact copy this is and whose results it was given; of most cells, itself.
    notes
        What a reader should know: copies, solvers that were helped out.
    """

    pseudotime: np.ndarray
    cytotrace: np.ndarray
    root: int
    transitions: sp.csr_matrix
    states: pd.DataFrame
    cores: list[np.ndarray]
    fates: absorption.Fates
    eigenvalues: np.ndarray
    crispness: float
    first: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def distinct(self) -> np.ndarray:
        """Say which cells are no copies."""
        return self.first == np.arange(len(self.first))

    @property
    def names(self) -> list[str]:
        """Return the terminal states' names."""
        return self.states.loc[self.states["terminal"], "state"].tolist()

    @property
    def ends(self) -> list[np.ndarray]:
        """Return the cells at the core of each terminal state."""
        return [self.cores[row] for row in np.flatnonzero(self.states["terminal"])]


def method_name(weights: Mapping[str, float]) -> str:
    """Name a mixture of kernels, heaviest first, e.g. ``pseudotime+connectivity``."""
    return "+".join(name for name, weight in sorted(weights.items(), key=lambda item: -item[1]) if weight > 0)


def fit(cells: Cells, options: Mapping[str, Any], seed: int = 0) -> Fit:
    """Find where cells go.

    Parameters
    ----------
    cells
        See `cells.read_cells`.
    options
        The config's section `trajectory`.
    seed
        Of iterations' starts and of approximate neighbours.

    Raises
    ------
    InputError
        An option does not fit the data.
    HistoweftError
        A solver does not converge, or its solution is no good.

    Notes
    -----
    Exact copies of a cell are each other's nearest neighbours and hold a walk for ever: one of each is kept, and the
    copies are given its results.
    """
    lost = ~np.isfinite(cells.points).all(axis=1)
    if lost.any():
        found = f"{lost.sum():,} of {len(cells):,} cells without components (first: {cells.barcodes[lost][0]})"
        raise InputError.one("the cells of the trajectory", found, "finite components for each cell")
    first = cells.firsts()
    kept = np.flatnonzero(first == np.arange(len(cells)))
    if len(kept) == len(cells):
        return _fit(cells, options, seed)
    copies = len(cells) - len(kept)
    if len(kept) < FEWEST_CELLS:
        found = f"{len(kept)} distinct cells ({copies:,} of {len(cells):,} are exact copies of another)"
        hint = "Was the same file joined twice? Leave the copies out of the input."
        raise InputError.one("the cells of the trajectory", found, f"{FEWEST_CELLS} or more", hint)
    found = _fit(cells.take(kept), options, seed)
    note = (
        f"{copies:,} of {len(cells):,} cells are exact copies of another cell; they were left out of the walk and "
        "given their twin's results"
    )
    return _give_copies(found, kept, first, note)


def _give_copies(found: Fit, kept: np.ndarray, first: np.ndarray, note: str) -> Fit:
    """Give the copies their twins' results; nobody walks to a copy."""
    at = np.searchsorted(kept, first)
    walk = found.transitions[at].tocsr()
    walk = sp.csr_matrix((walk.data, kept[walk.indices], walk.indptr), shape=(len(first), len(first)))
    return replace(
        found,
        pseudotime=found.pseudotime[at],
        cytotrace=found.cytotrace[at],
        root=int(kept[found.root]),
        transitions=walk,
        cores=[kept[core] for core in found.cores],
        fates=replace(found.fates, probabilities=found.fates.probabilities[at]),
        first=first,
        notes=(note, *found.notes),
    )


def _fit(cells: Cells, options: Mapping[str, Any], seed: int) -> Fit:
    """Find where cells go, none of them a copy of another."""
    graph, _ = neighbour_graph(np.asarray(cells.points, dtype=np.float32), options["neighbours"], seed)
    averaging = pseudotime.neighbour_weights(graph)
    young = pseudotime.cytotrace(cells.values, cells.n_genes, averaging)
    notes: list[str] = []
    diffusion = pseudotime.diffuse(graph, seed=seed, notes=notes)
    root = pseudotime.find_root(cells, options["root"], young, diffusion, averaging)
    time = pseudotime.diffusion_pseudotime(diffusion, root)
    walk = _walk(cells, options["kernels"], graph, averaging, time, young)
    memberships, stability, eigenvalues, crispness = _macrostates(walk, options, seed, notes)
    states, cores = terminal.terminal_states(
        walk, memberships, stability, time, cells.labels, options["states"]["terminal"], options["terminal_cells"],
        "cluster " if options["labels"] == "clusters" else "",
    )  # fmt: skip
    states, fates = _settle(walk, states, cores, time, options)
    return Fit(
        time, young, root, walk, states, cores, fates, eigenvalues, crispness, np.arange(len(cells)), tuple(notes)
    )


def _settle(
    walk: sp.csr_matrix, states: pd.DataFrame, cores: list[np.ndarray], time: np.ndarray, options: Mapping[str, Any]
) -> tuple[pd.DataFrame, absorption.Fates]:
    """Compute fates; where the user names no ends drop, one by one, those that the walk mostly leaves for good."""
    states = states.assign(returning=np.nan)
    while True:
        rows = np.flatnonzero(states["terminal"])
        ends = np.full(walk.shape[0], -1)
        for number, row in enumerate(rows):
            ends[cores[row]] = number
        fates = _fates(walk, ends, time, options["solver"])
        back = terminal.returning(walk, [cores[row] for row in rows], fates.probabilities)
        states.loc[rows, "returning"] = back
        if options["states"]["terminal"] is not None or len(rows) == 1 or back.min() > terminal.MAJORITY:
            return states, fates
        states.loc[rows[back.argmin()], "terminal"] = False


def _walk(
    cells: Cells,
    weights: Mapping[str, float],
    graph: sp.csr_matrix,
    averaging: sp.csr_matrix,
    time: np.ndarray,
    young: np.ndarray,
) -> sp.csr_matrix:
    """Make the kernels that have a weight, and mix them."""
    made = {}
    for name in (name for name, weight in weights.items() if weight > 0):
        if name == "connectivity":
            made[name] = kernels.connectivity_kernel(graph)
        elif name == "pseudotime":
            made[name] = kernels.pseudotime_kernel(graph, time)
        elif name == "cytotrace":
            made[name] = kernels.pseudotime_kernel(graph, 1 - young)
        else:
            found = velocity.estimate(cells.spliced, cells.unspliced, averaging)
            made[name] = kernels.velocity_kernel(graph, found.state, found.velocity)
    return kernels.combine(made, weights)


def _macrostates(
    walk: sp.csr_matrix, options: Mapping[str, Any], seed: int, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return memberships, stability of each state, eigenvalues and crispness."""
    wanted = options["states"]["number"]
    subspace = spectrum.slow_subspace(walk, spectrum.MOST if wanted is None else wanted + 1, seed, notes)
    m = subspace.whole(spectrum.count_slow(subspace.values) if wanted is None else wanted)
    if options["solver"] == "cellrank":
        peer.check_size(walk.shape[0], options["max_dense_cells"])
        memberships, coarse, crispness = peer.cellrank_macrostates(walk, m)
        return memberships, np.diag(coarse), subspace.values, crispness
    found = spectrum.macrostates(walk, subspace, m, seed)
    return found.memberships, found.stability, subspace.values, found.crispness


def _fates(walk: sp.csr_matrix, ends: np.ndarray, time: np.ndarray, solver: str) -> absorption.Fates:
    if solver == "cellrank" and ends.max() > 0:
        found = peer.cellrank_fates(walk, ends)
        error = absorption.judge(np.abs(found.sum(axis=1) - 1))
        return absorption.Fates(found, "cellrank", error, 0)
    own = "auto" if solver == "cellrank" else solver
    return absorption.fate_probabilities(walk, ends, int(ends.max()) + 1, time, own)


def fate_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return how undecided each cell is: entropy of its fates over that of even odds, 0 to 1; 0 for a single fate."""
    k = probabilities.shape[1]
    if k < 2:
        return np.where(np.isfinite(probabilities[:, 0]), 0.0, np.nan)
    safe = np.where(probabilities > 0, probabilities, 1.0)
    entropy = -(probabilities * np.log(safe)).sum(axis=1) / np.log(k)
    return np.clip(entropy, 0, 1)


def fate_table(found: Fit, cells: Cells, barcodes: pd.Index) -> pd.DataFrame:
    """Write a trajectory as a table over all barcodes of the sample.

    Returns
    -------
    Index: barcodes; pseudotime, macrostate and terminal (of the cells at a state's core, else ""), one column
    ``fate_<name>`` a terminal state, fate_entropy. Numbers of barcodes that did not enter are missing.
    """
    names = np.full((len(barcodes), 2), "", dtype=object)
    for state, is_end, core in zip(found.states["state"], found.states["terminal"], found.cores, strict=True):
        names[cells.rows[core], 0] = state
        if is_end:
            names[cells.rows[core], 1] = state
    columns = {"pseudotime": found.pseudotime}
    columns |= {f"{FATE}{name}": found.fates.probabilities[:, k] for k, name in enumerate(found.names)}
    columns["fate_entropy"] = fate_entropy(found.fates.probabilities)
    table = pd.DataFrame(columns, index=cells.barcodes).reindex(barcodes)
    table.insert(1, "macrostate", names[:, 0])
    table.insert(2, "terminal", names[:, 1])
    return table
