"""Which species genes are of, by what files say and how the genes are named, and whether species agree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from histoweft.errors import Fault

if TYPE_CHECKING:
    from histoweft.io import CountsFile

ENSEMBL = re.compile(r"^ENS(?P<species>[A-Z]{0,4})G\d{11}(?P<version>\.\d+)?(?P<rest>_PAR_Y)?$")
SPECIES = {"": "human", "MUS": "mouse", "RNO": "rat", "DAR": "zebrafish"}
GENOMES = {"grch": "human", "hg": "human", "grcm": "mouse", "mm": "mouse", "rnor": "rat", "mratbn": "rat"}

_WRITTEN_ALIKE = {"mouse", "rat"}
"""Species whose symbols are written alike: how genes are written does not tell them apart."""


@dataclass(frozen=True)
class Species:
    """The species of one file's genes.

    Attributes
    ----------
    name
        ``human``, ``mouse``, ``rat``, ``zebrafish``, ``mixed``, or empty where it is not known.
    by_symbols
        Whether only the way in which symbols are written says so.
    """

    name: str
    by_symbols: bool = False

    def __str__(self) -> str:
        how = " (by how its genes are written)" if self.by_symbols else ""
        return f"{self.name}{how}" if self.name else "unknown species"

    def contradicts(self, other: Species) -> bool:
        """Say whether two species cannot be the same."""
        if {self.name, other.name} & {"", "mixed"} or self.name == other.name:
            return False
        guessed = self.by_symbols or other.by_symbols
        return not (guessed and {self.name, other.name} <= _WRITTEN_ALIKE)


def guess_species(ids: Sequence[str], names: Sequence[str], genomes: Sequence[str] | None = None) -> str:
    """Return ``human``, ``mouse``, ``rat``, ``zebrafish``, ``mixed`` or ``""`` from identifiers and symbols."""
    if genomes is not None:
        found = {s for g in set(genomes) for k, s in GENOMES.items() if str(g).lower().startswith(k)}
        if len(found) == 1:
            return found.pop()
        if len(found) > 1:
            return "mixed"
    species = by_identifiers(ids)
    return by_symbols(names) if species is None else species


def by_identifiers(ids: Sequence[str]) -> str | None:
    """Return the species that Ensembl identifiers name; None where most are no such identifiers."""
    species = [SPECIES.get(m.group("species"), "") for i in ids if (m := ENSEMBL.match(i))]
    if len(species) <= 0.5 * len(ids):
        return None
    counts = pd.Series(species).value_counts(normalize=True)
    return str(counts.index[0]) if counts.iloc[0] > 0.9 else "mixed"


def by_symbols(names: Sequence[str]) -> str:
    """Return the species whose symbols are written so: CD4 in human, Cd4 in mouse; empty where too few say so."""
    letters = [n for n in names if len(n) >= 3 and n[:2].isalpha()]
    if len(letters) < 20:
        return ""
    upper = sum(n.upper() == n for n in letters) / len(letters)
    title = sum(n[0].isupper() and n[1:].lower() == n[1:] for n in letters) / len(letters)
    if upper > 0.8:
        return "human"
    return "mouse" if title > 0.7 else ""


def species_of(counts: CountsFile) -> Species:
    """Return the species of a file of counts: what ingest read, and whether more than symbols say so."""
    genes = counts.var()
    ids = genes["gene_id"].astype(str) if "gene_id" in genes else genes.index.astype(str)
    stated = str(counts.uns.get("histoweft", {}).get("species", ""))
    written = by_symbols(list(genes.index.astype(str)))
    name = stated or by_identifiers(list(ids)) or written
    return Species(name, by_symbols=by_identifiers(list(ids)) is None and name == written)


def disagreement(samples: Mapping[str, Species], where: str, hint: str) -> list[Fault]:
    """Return a fault where the samples of a joint step are of species that cannot be the same."""
    names = list(samples)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            if samples[one].contradicts(samples[other]):
                found = f"{one!r} of {samples[one]} beside {other!r} of {samples[other]}"
                return [Fault(where, found, "samples of one species", hint)]
    return []
