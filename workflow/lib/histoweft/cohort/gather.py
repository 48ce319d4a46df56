"""Reads what the earlier stages wrote of each section, one section at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histoweft.cohort import features, pseudobulk
from histoweft.cohort.pseudobulk import Places, Sums
from histoweft.io import CountsFile, read_graph, read_table

BARCODED = ("proportions", "annotation", "niches", "domains", "states", "fates", "interactions_local")
OTHERS = ("neighbourhood", "interactions_spatial", "drivers")

_MIN_SPOTS = 10


@dataclass
class Gathered:
    """What is known of the sections of a study.

    Attributes
    ----------
    table, columns
        See `features.by_patient`.
    counts
        Rows of the table x genes, pseudobulk counts.
    places
        See `pseudobulk.PLACE_COLUMNS`; besides genes of groups of barcodes also ``niche_pair`` (co-location of pairs
        inside a niche against elsewhere) and ``fate`` (correlation of genes with the fate of persister cells).
    """

    table: pd.DataFrame
    columns: pd.DataFrame
    counts: pd.DataFrame
    places: pd.DataFrame


def read_tables(paths: Mapping[str, str | os.PathLike], barcodes: pd.Index) -> dict[str, object]:
    """Read the tables of one section that are there.

    Parameters
    ----------
    paths
        Name (`BARCODED`, `OTHERS`, graph) to file.
    barcodes
        Order wanted.
    """
    tables: dict[str, object] = {}
    for name, path in paths.items():
        if name == "graph":
            tables[name] = read_graph(path)[0]
        elif name in BARCODED:
            tables[name] = read_table(path, barcodes)
        else:
            tables[name] = pd.read_parquet(path)
    return tables


def gather(files: Mapping[str, Mapping[str, str]], about: pd.DataFrame, patterns: list, comparable: bool) -> Gathered:
    """Go through all sections, patient by patient.

    Parameters
    ----------
    files
        Sample to its files: ``filtered`` (counts) and any tables of `read_tables`.
    about
        See `patients.table_of_samples`.
    patterns, comparable
        See `features.of_section`.
    """
    sections, spots, sums, places = {}, {}, {}, Places()
    for patient, samples in about.groupby("patient", sort=True).groups.items():
        whole: Sums | None = None
        local: list[dict] = []
        for sample in samples:
            paths = dict(files[sample])
            with CountsFile(paths.pop("filtered")) as counts:
                tables = read_tables(paths, counts.obs_names)
                groups = pseudobulk.groupings(tables, counts.obs_names)
                own = pseudobulk.add_up(counts.chunks(), counts.var_names, groups)
                spots[sample] = counts.n_obs
            sections[sample] = features.of_section(tables, patterns, comparable)
            local.append(local_differences(tables))
            row = f"{patient}|{about.loc[sample, 'condition']}" if about.loc[sample, "condition"] else str(patient)
            _take_in(sums, row, Sums(own.total))
            if whole is None:
                whole = own
            else:
                whole.add(own)
        places.add(whole)
        for (kind, group), difference in mean_differences(local).items():
            places.add_difference(kind, group, difference)
    features.drop_incomparable(sections)
    table, columns = features.by_patient(sections, about, spots)
    return Gathered(table, columns, pseudobulk.matrix({row: sums[row] for row in table.index}), places.table())


def _take_in(sums: dict[str, Sums], row: str, section: Sums) -> None:
    if row in sums:
        sums[row].add(section)
    else:
        sums[row] = section


def local_differences(tables: Mapping[str, object]) -> dict[tuple[str, str], pd.Series]:
    """Return what one section adds to the places beyond counts.

    Returns
    -------
    (``niche_pair``, niche) to the mean local score of each pair in the niche less that elsewhere; (``fate``,
    ``persister``) to Fisher's z of each gene's correlation with the fate that persister cells have more than others.
    """
    found: dict[tuple[str, str], pd.Series] = {}
    if "interactions_local" in tables and "niches" in tables:
        scores, niche = tables["interactions_local"], tables["niches"]["niche"].astype(str).to_numpy()
        for name in np.unique(niche):
            inside = niche == name
            if min(inside.sum(), (~inside).sum()) >= _MIN_SPOTS:
                found[("niche_pair", name)] = scores[inside].mean() - scores[~inside].mean()
    fate = persister_fate(tables)
    if fate and "drivers" in tables:
        drivers = tables["drivers"]
        own = drivers[drivers["fate"].astype(str) == fate].drop_duplicates("gene").set_index("gene")["correlation"]
        found[("fate", "persister")] = np.arctanh(own.clip(-0.999, 0.999))
    return found


def persister_fate(tables: Mapping[str, object]) -> str:
    """Return the fate that persister cells of a section are likelier to have than its other cells; empty if unknown."""
    if "states" not in tables or "fates" not in tables or "persister" not in tables["states"]:
        return ""
    fates = tables["fates"]
    columns = [c for c in fates if c.startswith("fate_") and c != "fate_entropy"]
    inside = tables["states"]["persister"].fillna(False).astype(bool).to_numpy()
    if not columns or min(inside.sum(), (~inside).sum()) < _MIN_SPOTS:
        return ""
    gap = fates.loc[inside, columns].mean() - fates.loc[~inside, columns].mean()
    return str(gap.idxmax()).removeprefix("fate_") if gap.max() > 0 else ""


def mean_differences(local: list[dict]) -> dict[tuple[str, str], pd.Series]:
    """Average over the sections of a patient."""
    keys = dict.fromkeys(key for one in local for key in one)
    return {key: pd.concat([one[key] for one in local if key in one], axis=1).mean(axis=1) for key in keys}
