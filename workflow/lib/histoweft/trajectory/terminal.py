"""Which macrostates are ends: the cells at their core, how long the walk stays there, and their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import Faults, InputError, nearest

STEPS = 10
"""Steps over which it is measured how long the walk stays among the cells at a state's core."""

MAJORITY = 0.5
"""An end takes back more than this share of the walks that leave its core."""

_SAME = 1 / 3
_FEWEST = 5
_CORE_SHARE = 0.05
_OVER_CHANCE = 2


def core_size(n_cells: int, wanted: int) -> int:
    """Return how many cells make the core of a state: as asked, but no more than one in twenty (five at least)."""
    return max(min(wanted, int(_CORE_SHARE * n_cells)), min(_FEWEST, n_cells))


def retention(transitions: sp.csr_matrix, cores: Sequence[np.ndarray], steps: int = STEPS) -> np.ndarray:
    """Return, for each set of cells, how likely a walk that starts among them is among them after some steps."""
    n = transitions.shape[0]
    start = np.zeros((n, len(cores)))
    for column, cells in enumerate(cores):
        start[cells, column] = 1 / len(cells)
    back, place = transitions.T.tocsr(), start
    for _ in range(steps):
        place = back @ place
    return np.array([place[cells, column].sum() for column, cells in enumerate(cores)])


def returning(transitions: sp.csr_matrix, cores: Sequence[np.ndarray], fates: np.ndarray) -> np.ndarray:
    """Return, for each end, the share of the walks stepping out of its core that end there again, not at another end.

    Parameters
    ----------
    transitions
        cells x cells.
    cores
        Cells of each end.
    fates
        cells x ends: see `absorption.fate_probabilities`.
    """
    back = np.ones(len(cores))
    for number, cells in enumerate(cores):
        steps = np.asarray(sp.csr_matrix(transitions)[cells].sum(axis=0)).ravel()
        steps[cells] = 0
        if steps.sum() > 0:
            there = steps > 0
            # A walk to where no end can be reached does not return.
            back[number] = steps[there] @ np.nan_to_num(fates[there, number]) / steps.sum()
    return back


def different_cores(
    memberships: np.ndarray, size: int, transitions: sp.csr_matrix
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Pick the cells at the core of each macrostate; of states with the same core, keep the one held longest.

    Returns
    -------
    states
        Numbers of the macrostates kept.
    cores
        Their cells, disjoint.
    """
    cores = [np.argsort(-column, kind="stable")[:size] for column in memberships.T]
    order = np.argsort(-retention(transitions, cores), kind="stable")
    kept: list[int] = []
    taken = np.zeros(len(memberships), dtype=bool)
    for state in order:
        if taken[cores[state]].mean() > _SAME:
            continue
        cores[state] = cores[state][~taken[cores[state]]]
        taken[cores[state]] = True
        kept.append(int(state))
    return np.array(kept), [cores[state] for state in kept]


def name_states(cores: Sequence[np.ndarray], labels: np.ndarray, prefix: str = "") -> pd.DataFrame:
    """Name each state by the most frequent label among its cells, a number behind names that come again.

    Returns
    -------
    One row a state: state (its name; ``state 1`` and so on where no cell has a label), label ("" without), purity
    (share of the core with that label; NaN without).
    """
    rows, seen = [], Counter()
    for number, cells in enumerate(cores, 1):
        counted = Counter(label for label in labels[cells] if label)
        label, times = min(counted.items(), key=lambda item: (-item[1], item[0])) if counted else ("", 0)
        name = f"{prefix}{label}" if label else f"state {number}"
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name} {seen[name]}"
        rows.append((unique, label, times / len(cells) if counted else float("nan")))
    return pd.DataFrame(rows, columns=["state", "label", "purity"])


def terminal_states(
    transitions: sp.csr_matrix,
    memberships: np.ndarray,
    stability: np.ndarray,
    pseudotime: np.ndarray,
    labels: np.ndarray,
    wanted: int | list[str] | None,
    core_cells: int,
    prefix: str = "",
) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Describe macrostates and say which of them are ends.

    Parameters
    ----------
    transitions
        cells x cells.
    memberships
        cells x macrostates.
    stability
        (macrostates,) how likely the coarse walk stays.
    pseudotime
        (cells,), NaN where it is not known.
    labels
        (cells,) text; only names the states, and is not read to find them, unless `wanted` holds labels.
    wanted
        A number of terminal states; labels whose states are terminal because the user says so; None to find them.
    core_cells
        Cells at a state's core; see `core_size`.
    prefix
        Before each label.

    Returns
    -------
    table
        One row a macrostate, longest held first: state, label, purity, cells, pseudotime (median of the core),
        stability, retention, late, terminal.
    cores
        Cells of each.

    Raises
    ------
    InputError
        So many terminal states, or such labels, are not among the macrostates.

    Notes
    -----
    A random walk stays longest where it ends. An end lies later than half of all cells, and holds the walk (chance
    to be at the core after `STEPS` steps) longer than every state of the earlier half and than the cells around the
    root (and twice as long as chance): those cannot be ends, so they show how long the walk is held where cells only
    pass. (`fit.fit` then drops ends whose walks are caught by others: see `returning`.) The diagonal of GPCCA's
    coarse walk (CellRank's criterion) hardly differs between ends and passages on real data; it is reported only.
    """
    size = core_size(len(memberships), core_cells)
    states, cores = different_cores(memberships, size, transitions)
    held = retention(transitions, cores)
    at = np.array([np.median(pseudotime[cells]) for cells in cores])
    # Comparisons with a missing pseudotime are false: what the root does not lead to is neither early nor an end.
    middle = np.nanmedian(pseudotime)
    late = at > middle
    first = np.argsort(pseudotime, kind="stable")[:size]
    chance = _OVER_CHANCE * size / len(pseudotime)
    passing = max([chance, *held[at <= middle], *retention(transitions, [first])])
    table = name_states(cores, labels, prefix)
    table["cells"] = [len(cells) for cells in cores]
    table["pseudotime"] = at
    table["stability"] = stability[states]
    table["retention"] = held
    table["late"] = late
    table["terminal"] = _are_ends(table, passing, wanted)
    return table, cores


def _are_ends(table: pd.DataFrame, passing: float, wanted: int | list[str] | None) -> np.ndarray:
    """Say which states are ends; see `terminal_states`."""
    where = "config: trajectory.states.terminal"
    held, late = table["retention"].to_numpy(), table["late"].to_numpy()
    if isinstance(wanted, list):
        present = list(dict.fromkeys(table["label"]))
        faults = Faults()
        for label in wanted:
            if label not in present:
                hint = nearest(label, present) or "Raise trajectory.states.number, so that smaller states are found."
                faults.add(where, repr(label), f"labels of macrostates: {', '.join(present)}", hint)
        faults.raise_if_any()
        # Of several states with one label the one held longest is the end.
        return (table["label"].isin(wanted) & ~table["label"].duplicated()).to_numpy()
    ranked = np.flatnonzero(late)[np.argsort(-held[late], kind="stable")]
    if wanted is None:
        ends = late & (held > passing)
        # A walk always ends somewhere: where nothing stands out, in the state that holds it longest.
        best = ranked[:1] if len(ranked) else [int(held.argmax())]
        return ends if ends.any() else np.isin(np.arange(len(held)), best)
    if len(ranked) < wanted:
        hint = "Ask for fewer, or raise trajectory.states.number."
        found = f"{wanted} terminal states, where {len(ranked)} of {len(held)} macrostates lie in the later half"
        raise InputError.one(where, found, f"at most {len(ranked)}", hint)
    return np.isin(np.arange(len(held)), ranked[:wanted])
