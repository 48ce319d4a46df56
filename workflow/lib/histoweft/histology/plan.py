"""Which models are fitted on which sections: a list that the rules turn into jobs before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ACROSS, BLOCK, RANDOM, ALL = "across", "block", "random", "all"
PROTOCOLS = (ACROSS, BLOCK, RANDOM)


@dataclass(frozen=True)
class Fit:
    """One job: sections, and what is held out of them.

    Attributes
    ----------
    name
        ``across-1``, ``block-<sample>``, ``random-<sample>`` or ``all``.
    kind
        The word before the dash.
    samples
        Sections that are read.
    held_out
        Groups that are tested (``across`` only).
    """

    name: str
    kind: str
    samples: tuple[str, ...]
    held_out: tuple[str, ...] = ()


def groups(samples: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, str]]:
    """Say what must never lie on both sides of a fold.

    Parameters
    ----------
    samples
        Sample to its row of the sheet.

    Returns
    -------
    protocol
        ``patient`` where there are several patients and one of them has several sections, else ``section``.
    groups
        Sample to its patient, or to itself.
    """
    patients = {name: str(row["patient"]) for name, row in samples.items()}
    n = len(set(patients.values()))
    if 1 < n < len(patients):
        return "patient", patients
    return "section", {name: name for name in samples}


def fits(samples: Mapping[str, Mapping[str, Any]], protocols: Sequence[str], n_folds: int) -> dict[str, Fit]:
    """List the fits of a study.

    Parameters
    ----------
    samples
        Sample to row of the sheet; those with an image.
    protocols
        Of `PROTOCOLS`. ``across`` needs two groups, and is left out without them.
    n_folds
        Folds at most.

    Returns
    -------
    dict
        Name to fit; `ALL` (nothing held out, for painting) last.
    """
    names = tuple(samples)
    found: list[Fit] = []
    of = groups(samples)[1]
    members = sorted(set(of.values()), key=[of[name] for name in names].index)
    for protocol in protocols:
        if protocol != ACROSS:
            found += [Fit(f"{protocol}-{name}", protocol, (name,)) for name in names]
        elif len(members) > 1:
            n = min(n_folds, len(members))
            shares = [tuple(members[i::n]) for i in range(n)]
            found += [Fit(f"{ACROSS}-{i}", ACROSS, names, share) for i, share in enumerate(shares, 1)]
    found.append(Fit(ALL, ALL, names))
    return {fit.name: fit for fit in found}


def frames(samples: Mapping[str, Mapping[str, Any]], by: str) -> dict[str, str]:
    """Say which sections are serial: to be registered into one frame.

    Parameters
    ----------
    samples
        Sample to row of the sheet.
    by
        ``none``; ``patient``: sections of one patient that have a position along the block (sheet column `section`);
        ``study``: all that have one.

    Returns
    -------
    dict
        Sample to frame, only for frames of at least two sections.
    """
    if by == "none":
        return {}
    placed = {name: row for name, row in samples.items() if row.get("section") is not None}
    found = {name: str(row["patient"]) if by == "patient" else "study" for name, row in placed.items()}
    sizes = [*found.values()]
    return {name: frame for name, frame in found.items() if sizes.count(frame) > 1}


def spread(samples: Iterable[str], most: int) -> list[str]:
    """Choose at most so many samples, evenly over the sheet."""
    names = list(samples)
    if len(names) <= most:
        return names
    return [names[i * len(names) // most] for i in range(most)]
