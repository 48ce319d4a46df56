"""Sets of genes that a transformer reads as its tokens: given ones, or modules learned from the reference."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from histoweft.annotation.space import Space
from histoweft.errors import InputError

MODULES = 48
"""Modules that are learned; fewer for a small panel."""
SET_GENES = 128
"""Genes of a set at most: a wide set costs every other one its padding."""
LEAST_GENES = 3
"""Genes that a given set must share with the panel."""


@dataclass(frozen=True)
class Tokens:
    """Gene sets over the used genes.

    Attributes
    ----------
    names
        Of the sets.
    genes
        sets x largest size: numbers of the used genes, filled up with 0.
    member
        sets x largest size, bool: which of these are meant.
    """

    names: list[str]
    genes: np.ndarray
    member: np.ndarray


def read_gmt(path: str | os.PathLike) -> dict[str, list[str]]:
    """Read gene sets from a gmt file: name, description, genes, separated by tabs.

    Raises
    ------
    InputError
        It cannot be read, or a line has no genes.
    """
    sets = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                name, *rest = line.rstrip("\n").split("\t")
                genes = [gene.strip() for gene in rest[1:] if gene.strip()]
                if not line.strip():
                    continue
                if not genes:
                    expected = "a name, a description and genes, separated by tabs"
                    raise InputError.one(f"{path}, line {number}", repr(line.strip()[:40]), expected)
                sets[name] = genes
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.one(path, error, "gene sets (.gmt)") from error
    if len(sets) < 2:
        raise InputError.one(path, f"{len(sets)} gene sets", "at least two")
    return sets


def given_tokens(sets: dict[str, list[str]], genes: np.ndarray) -> Tokens:
    """Return the given sets over the used genes.

    Parameters
    ----------
    sets
        Name to genes.
    genes
        Names of the used genes; any case matches.

    Raises
    ------
    InputError
        Fewer than two sets share `LEAST_GENES` genes with them.
    """
    number = {str(gene).casefold(): i for i, gene in enumerate(genes)}
    found = {name: [number[gene.casefold()] for gene in members if gene.casefold() in number]
             for name, members in sets.items()}  # fmt: skip
    kept = {name: sorted(set(members))[:SET_GENES] for name, members in found.items()
            if len(set(members)) >= LEAST_GENES}  # fmt: skip
    if len(kept) < 2:
        hint = (
            "Are the sets named by symbols, as the reference is? Leave annotation.gene_sets empty for learned modules."
        )
        shared = f"{len(kept)} of {len(sets)} sets share {LEAST_GENES} genes with the {len(genes)} genes used"
        raise InputError.one("annotation.gene_sets", shared, "at least two", hint)
    return _tokens(list(kept), list(kept.values()))


def learned_tokens(space: Space, scores: np.ndarray, genes: np.ndarray, seed: int) -> Tokens:
    """Group genes that vary together: k-means of their directions in the space of the components.

    Parameters
    ----------
    space
        Learned on the training cells.
    scores
        Of these cells, cells x k.
    genes
        Names of the used genes.
    seed
        Of k-means.

    Returns
    -------
    Tokens
        Each named by its number and the three genes nearest its centre.
    """
    from sklearn.cluster import KMeans

    loadings = space.axes * scores.std(axis=0)
    size = np.linalg.norm(loadings, axis=1, keepdims=True)
    directions = loadings / np.maximum(size, 1e-12)
    n = int(np.clip(len(genes) // 8, 2, MODULES))
    fitted = KMeans(n, n_init=3, random_state=seed).fit(directions)
    # Genes of large loading speak for a module; those of small ones have chance directions.
    nearness = (directions * fitted.cluster_centers_[fitted.labels_]).sum(axis=1) * np.sqrt(size[:, 0])
    names, members = [], []
    for module in range(n):
        rows = np.flatnonzero(fitted.labels_ == module)
        rows = rows[np.argsort(-nearness[rows], kind="stable")][:SET_GENES]
        names.append(f"module {module + 1} ({', '.join(map(str, genes[rows[:3]]))})")
        members.append(rows.tolist())
    return _tokens(names, members)


def _tokens(names: list[str], members: list[list[int]]) -> Tokens:
    width = max(map(len, members))
    genes = np.zeros((len(members), width), dtype=np.int64)
    member = np.zeros((len(members), width), dtype=bool)
    for row, numbers in enumerate(members):
        genes[row, : len(numbers)], member[row, : len(numbers)] = numbers, True
    return Tokens(names, genes, member)
