"""Which ligand binds which receptor: LIANA's consensus or a table of one's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoweft.errors import Faults, InputError

CONSENSUS = {"human": "consensus", "mouse": "mouseconsensus"}
ORGANISMS = ("auto", *CONSENSUS)
COMPLEX = "_"
"""Joins the subunits of a complex."""

_TABLE = "liana/resource/omni_resource.csv"


def organism_of(genes: pd.Index) -> str:
    """Tell human (CD4) from mouse (Cd4) by how most symbols with letters are written."""
    letters = [name for name in map(str, genes) if sum(c.isalpha() for c in name) > 1]
    return "human" if sum(name == name.upper() for name in letters) * 2 >= len(letters) else "mouse"


def read_resource(resource: str, organism: str, genes: pd.Index, species: str = "") -> pd.DataFrame:
    """Read pairs of ligands and receptors.

    Parameters
    ----------
    resource
        ``consensus``, LIANA's (Dimitrov et al. 2022, Nature Communications 13:3224), or the path of a ``.tsv`` or
        ``.csv`` with columns ligand and receptor; subunits of a complex joined with ``_``.
    organism
        Which consensus: ``human``, ``mouse``, or ``auto``: `species`, else by how the genes are written.
    genes
        Symbols of the sample.
    species
        What the sample's files say.

    Returns
    -------
    ligand, receptor; each pair once.

    Raises
    ------
    InputError
        The table cannot be read or lacks a column or values.
    """
    if resource == "consensus":
        if organism == "auto":
            organism = species if species in CONSENSUS else organism_of(genes)
        table = pd.read_csv(_installed(), usecols=["source_genesymbol", "target_genesymbol", "resource"])
        table = table.loc[table["resource"] == CONSENSUS[organism]]
        table = table.rename(columns={"source_genesymbol": "ligand", "target_genesymbol": "receptor"})
    else:
        table = _read_own(Path(resource))
    return table[["ligand", "receptor"]].drop_duplicates(ignore_index=True)


def _installed() -> Path:
    """Find LIANA's table among the installed files; importing liana would take seconds."""
    from importlib.metadata import PackageNotFoundError, distribution

    hint = "Install liana (envs/space.yaml), or give a table of your own."
    where = "config: space.interactions.resource"
    try:
        path = Path(str(distribution("liana").locate_file(_TABLE)))
    except PackageNotFoundError as error:
        raise InputError.one(where, "consensus, but liana is not installed", "LIANA's table", hint) from error
    if not path.is_file():
        raise InputError.one(where, f"consensus, but no {path}", "LIANA's table", hint)
    return path


def _read_own(path: Path) -> pd.DataFrame:
    where = f"config: space.interactions.resource ({path})"
    try:
        table = pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t", dtype=str)
    except (OSError, ValueError) as error:
        raise InputError.one(where, error, "consensus, or a .tsv or .csv with columns ligand and receptor") from error
    faults = Faults()
    for column in ("ligand", "receptor"):
        if column not in table:
            faults.add(where, f"columns {', '.join(map(str, table.columns))}", f"a column {column!r}")
        elif table[column].isna().any():
            line = int(np.flatnonzero(table[column].isna())[0]) + 2
            faults.add(f"{where}, line {line}", f"no {column}", "a gene, or genes joined with '_'")
    faults.raise_if_any()
    return table


@dataclass(frozen=True)
class Pairs:
    """Pairs whose genes a sample has.

    Attributes
    ----------
    names
        Ligands and receptors, complexes by their joined name; each once.
    subunits
        For each name, where its genes stand in `genes`.
    ligand, receptor
        For each pair, where it stands in `names`.
    genes
        Columns of the sample that are used, rising.
    """

    names: list[str]
    subunits: list[tuple[int, ...]]
    ligand: np.ndarray
    receptor: np.ndarray
    genes: np.ndarray

    def __len__(self) -> int:
        return len(self.ligand)


def match(resource: pd.DataFrame, genes: pd.Index) -> Pairs:
    """Keep the pairs all of whose subunits are among a sample's genes.

    Parameters
    ----------
    resource
        ligand, receptor.
    genes
        Symbols of the sample; of a repeated one the first column counts.
    """
    place: dict[str, int] = {}
    for i, gene in enumerate(genes):
        place.setdefault(str(gene), i)

    def columns(name: str) -> tuple[int, ...] | None:
        # A symbol may hold the joint itself (HLA genes of some annotations).
        parts = [name] if name in place else name.split(COMPLEX)
        found = [place[part] for part in parts if part in place]
        return tuple(found) if len(found) == len(parts) else None

    known = {name: columns(name) for name in pd.unique(resource[["ligand", "receptor"]].to_numpy().ravel())}
    kept = resource[[known[a] is not None and known[b] is not None for a, b in resource.to_numpy()]]
    names = sorted(set(kept["ligand"]) | set(kept["receptor"]))
    used = np.array(sorted({column for name in names for column in known[name]}), dtype=int)
    at, row = {name: i for i, name in enumerate(names)}, {column: i for i, column in enumerate(used)}
    return Pairs(
        names,
        [tuple(row[column] for column in known[name]) for name in names],
        kept["ligand"].map(at).to_numpy(dtype=int),
        kept["receptor"].map(at).to_numpy(dtype=int),
        used,
    )


def in_words(pairs: Pairs, resource: pd.DataFrame, path: str | os.PathLike) -> str:
    """Say how much of a resource a sample covers."""
    return f"{len(pairs)} of {len(resource)} pairs have all their genes ({len(pairs.genes)}) in {path}"
