"""One section's persisters beside everything else that is known of its tissue."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import pandas as pd

from histoweft.io import CountsFile, read_graph, read_table
from histoweft.states import niches
from histoweft.states.sample import fate_columns
from histoweft.states.scores import normalised

NICHE_KEYS, PARTNER_KEYS = ("kind", "name"), ("ligand_complex", "receptor_complex", "direction")

Path = str | os.PathLike


def around_persisters(
    filtered: Path, graph: Path, states: Path, found: Mapping[str, Path], target_sum: float, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Say what surrounds the persisters of one section.

    Parameters
    ----------
    filtered, graph, states
        Counts, neighbours on the tissue, table of `histoweft.states.sample.analyse`.
    found
        What else there is, by name: niches, annotation, proportions, fates (tables of barcodes), interactions and
        interactions_spatial (pairs of ligand and receptor that were tested).
    target_sum
        Total that each barcode is scaled to before log1p.
    seed
        Of the moved patterns.

    Returns
    -------
    around
        kind (niche, neighbour, fate), name, and the columns of `histoweft.states.niches.associate`.
    partners
        ligand_complex, receptor_complex, direction (received or sent), and the same columns.
    """
    with CountsFile(filtered) as counts:
        table = read_table(states, counts.obs_names)
        xy = np.asarray(counts.obsm("spatial"), dtype=float)[:, :2]
        pairs = _pairs(found)
        expression = _expression(counts, pairs, target_sum)
    near = read_graph(graph)[0]
    called, eligible = table["persister"].to_numpy(), table["persister_score"].notna().to_numpy()
    parts = []
    for kind, values in _features(found, near, table.index).items():
        parts.append(niches.associate(xy, called, eligible, values, seed).reset_index().assign(kind=kind))
    around = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*NICHE_KEYS, *niches.COLUMNS])
    scores = niches.pair_scores(expression, near, pairs)
    partners = niches.associate(xy, called, eligible, scores, seed).reset_index()
    named = partners.pop("name").astype(str).str.extract(r"^(.*)\^(.*)\|(.*)$")
    partners[list(PARTNER_KEYS)] = named.to_numpy()
    return around[[*NICHE_KEYS, *niches.COLUMNS]], partners[[*PARTNER_KEYS, *niches.COLUMNS]]


def _features(found: Mapping[str, Path], graph, barcodes: pd.Index) -> dict[str, pd.DataFrame]:
    features = {}
    if "niches" in found:
        features["niche"] = niches.one_hot(read_table(found["niches"], barcodes)["niche"])
    if "proportions" in found:
        shares = read_table(found["proportions"], barcodes)
        members = shares[[column for column in shares if f"low:{column}" in shares]]
        features["neighbour"] = niches.surroundings(graph, members)
    elif "annotation" in found:
        members = niches.one_hot(read_table(found["annotation"], barcodes)["label"])
        features["neighbour"] = niches.surroundings(graph, members)
    if "fates" in found:
        fates = read_table(found["fates"], barcodes)
        chosen = fates[fate_columns(fates)].fillna(0.0)
        features["fate"] = chosen.rename(columns=lambda column: column.removeprefix("fate_"))
    return features


def _pairs(found: Mapping[str, Path]) -> pd.DataFrame:
    names = list(PARTNER_KEYS[:2])
    tables = [pd.read_parquet(found[name])[names] for name in ("interactions", "interactions_spatial") if name in found]
    return pd.concat(tables).drop_duplicates(ignore_index=True) if tables else pd.DataFrame(columns=names)


def _expression(counts: CountsFile, pairs: pd.DataFrame, target_sum: float) -> pd.DataFrame:
    """Return the log-normalised subunits of all pairs; barcodes x genes."""
    units = {unit for column in pairs for name in pairs[column] for unit in name.split("_")}
    wanted = sorted(units & set(counts.var_names))
    at = counts.var_names.get_indexer(wanted)
    totals = np.concatenate([np.asarray(chunk.sum(axis=1), dtype=float).ravel() for _, chunk in counts.chunks()])
    parts = [values[:, at].toarray() for _, values in normalised(counts, totals, target_sum)]
    return pd.DataFrame(np.concatenate(parts), index=counts.obs_names, columns=wanted)
