"""What the earlier stages know of each section, gathered into one row a patient, each column with its source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from histoweft.cohort.microenvironment import cell_types, compartments, contacts
from histoweft.cohort.patients import CLINICAL

COLUMN_TABLE = ("column", "stage", "file", "aggregation", "rows", "missing")


@dataclass
class Section:
    """Features of one section.

    Attributes
    ----------
    values
        Column to value.
    sources
        Column to (stage, file name, how barcodes were put together).
    """

    values: dict[str, float] = field(default_factory=dict)
    sources: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def drop(self, column: str) -> None:
        """Leave a column out."""
        self.values.pop(column, None)
        self.sources.pop(column, None)

    def add(self, prefix: str, values: Mapping[str, float], stage: str, file: str, how: str) -> None:
        """Take in values under ``prefix:name``."""
        for name, value in values.items():
            self.values[f"{prefix}:{name}"] = float(value)
            self.sources[f"{prefix}:{name}"] = (stage, file, how)


def of_section(tables: Mapping[str, object], patterns: Sequence, comparable: bool) -> Section:
    """Compute the features of one section from whatever tables there are.

    Parameters
    ----------
    tables
        Name to table: proportions, annotation, niches, domains, states, fates (barcode-indexed), neighbourhood,
        interactions_spatial, graph (sparse). Any may be absent.
    patterns
        See `microenvironment.read_compartments`.
    comparable
        Whether the groups of neighbourhood mean the same in all sections: true of cell types and of expert labels, not
        of a section's own clusters.
    """
    section = Section()
    _composition(section, tables, patterns)
    for name, column in (("niches", "niche"), ("domains", "domain")):
        if name in tables:
            share = tables[name][column].value_counts(normalize=True, sort=False)
            section.add(column, share, "space", f"{name}.parquet", "share of barcodes")
    if "neighbourhood" in tables and comparable:
        met = tables["neighbourhood"]
        names = [f"{a}|{b}" for a, b in zip(met["a"], met["b"])]
        ratio = np.log2((met["count"] + 1) / (met["expected"] + 1))
        how = "log2 of neighbouring pairs over expected"
        section.add("neighbourhood", dict(zip(names, ratio)), "space", "neighbourhood.parquet", how)
    if "interactions_spatial" in tables:
        pairs = tables["interactions_spatial"]
        names = [f"{a}^{b}" for a, b in zip(pairs["ligand_complex"], pairs["receptor_complex"])]
        how = "co-location score of the section"
        section.add("interaction", dict(zip(names, pairs["score"])), "space", "interactions_spatial.parquet", how)
    _states(section, tables)
    if "fates" in tables:
        fates = tables["fates"]
        wanted = [c for c in fates if c.startswith("fate_")]
        values = {c.removeprefix("fate_"): fates[c].mean() for c in wanted}
        section.add("fate", values, "trajectory", "fates.parquet", "mean over barcodes")
    return section


def drop_incomparable(sections: Mapping[str, Section]) -> list[str]:
    """Leave out what does not mean the same in every section; return the columns left out.

    A barcode is transitional by its fates where there are any and by its neighbours elsewhere: two measures. An end
    with a number (``tumour 2``) is named within its section, and is another one in the next.
    """
    fated = [section for section in sections.values() if any(column.startswith("fate:") for column in section.values)]
    unlike = {"state:transitional"} if 0 < len(fated) < len(sections) else set()
    if len(fated) > 1:
        numbered = {name for section in fated for name in section.values if re.fullmatch(r"fate:.* \d+", name)}
        unlike |= numbered | {name.rsplit(" ", 1)[0] for name in numbered}
    left_out = sorted(unlike & {column for section in sections.values() for column in section.values})
    for section in sections.values():
        for column in left_out:
            section.drop(column)
    return left_out


def _composition(section: Section, tables: Mapping[str, object], patterns: Sequence) -> None:
    proportions, annotation = tables.get("proportions"), tables.get("annotation")
    if proportions is None and annotation is None:
        return
    file = "annotation.parquet" if proportions is None else "proportions.parquet"
    types = cell_types(proportions, annotation)
    section.add("composition", types.mean(), "annotation", file, "mean share over barcodes")
    grouped = compartments(types, patterns)
    section.add("compartment", grouped.mean(), "annotation", file, "mean share over barcodes")
    if "graph" in tables:
        how = "log2 of neighbouring pairs over what abundance gives"
        section.add("contact", contacts(grouped, tables["graph"]), "space", f"graph.npz, {file}", how)


def _states(section: Section, tables: Mapping[str, object]) -> None:
    if "states" not in tables:
        return
    states, file = tables["states"], "states.parquet"
    means = {c.removeprefix("signature_"): states[c].mean() for c in states if c.startswith("signature_")}
    section.add("signature", means, "states", file, "mean over barcodes")
    if "persister_score" in states:
        section.add(
            "state", {"persister_score": states["persister_score"].mean()}, "states", file, "mean over barcodes"
        )
    flags = [c for c in ("persister", "rare", "transitional") if c in states]
    shares = {c: states[c].fillna(False).astype(bool).mean() for c in flags}
    section.add("state", shares, "states", file, "share of barcodes")
    if "phase" in states:
        section.add("phase", states["phase"].value_counts(normalize=True), "states", file, "share of barcodes")


def by_patient(
    sections: Mapping[str, Section], about: pd.DataFrame, spots: Mapping[str, int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put the sections of each patient and condition together.

    Parameters
    ----------
    sections
        Sample to its features.
    about
        See `patients.table_of_samples`.
    spots
        Barcodes of each sample: the weight of a section.

    Returns
    -------
    table
        One row a patient and condition: patient, cohort, condition, sections, spots, response, clinical columns,
        features. A niche that a section does not name has the share 0 there; a section without niches has none at all.
    columns
        `COLUMN_TABLE`: where each feature comes from.
    """
    samples = list(sections)
    values = pd.DataFrame({s: sections[s].values for s in samples}, dtype=float).T.reindex(samples)
    sources: dict[str, tuple[str, str, str]] = {}
    for section in sections.values():
        sources |= section.sources
    values = values.reindex(columns=sorted(sources, key=_order))
    _fill_shares(values, sources)
    weight = pd.Series({s: float(spots[s]) for s in samples})
    key = [about.loc[samples, "patient"].to_numpy(), about.loc[samples, "condition"].to_numpy()]
    known = values.notna().mul(weight, axis=0).groupby(key, sort=False).sum()
    total = values.fillna(0.0).mul(weight, axis=0).groupby(key, sort=False).sum()
    mean = total.div(known.where(known > 0))
    table = _rows(about.loc[samples], weight, key).join(mean)
    table.index = pd.Index([f"{p}|{c}" if c else str(p) for p, c in table.index], name="row")
    return table, column_table(table, sources)


def _order(column: str) -> tuple[str, tuple]:
    kind, _, name = column.partition(":")
    return kind, (0, int(name), "") if name.isdigit() else (1, 0, name)


def _fill_shares(values: pd.DataFrame, sources: Mapping[str, tuple[str, str, str]]) -> None:
    """Write 0 for a niche (type, phase) that a section does not name: it takes no room there."""
    for kind in {c.partition(":")[0] for c in values}:
        columns = [c for c in values if c.startswith(f"{kind}:") and "share" in sources[c][2]]
        present = values[columns].notna().any(axis=1)
        values.loc[present, columns] = values.loc[present, columns].fillna(0.0)


def _rows(about: pd.DataFrame, weight: pd.Series, key: list[np.ndarray]) -> pd.DataFrame:
    grouped = about.groupby(key, sort=False)
    table = grouped[["patient", "cohort", "condition"]].first()
    table["sections"] = grouped.size()
    table["spots"] = weight.groupby(key, sort=False).sum().astype(int)
    told = [c for c in about if c == "response" or c.startswith(CLINICAL)]
    table[told] = grouped[told].first()
    return table


def column_table(table: pd.DataFrame, sources: Mapping[str, tuple[str, str, str]]) -> pd.DataFrame:
    """Say of each feature which stage and file it comes from, how it was made, and of how many rows it is known."""
    rows = [(c, *sources[c], int(table[c].notna().sum()), int(table[c].isna().sum())) for c in table if c in sources]
    return pd.DataFrame(rows, columns=list(COLUMN_TABLE))


def merge_conditions(table: pd.DataFrame, condition: str = "") -> pd.DataFrame:
    """Return one row a patient.

    Parameters
    ----------
    table
        Features of `by_patient`.
    condition
        Only sections of this condition are used (the one before treatment); all of them when empty.

    Returns
    -------
    Index: patients. Features are means weighted by spots.
    """
    rows = table[table["condition"] == condition] if condition else table
    told = [c for c in rows if c in ("cohort", "response") or c.startswith(CLINICAL)]
    features = feature_columns(rows)
    weight = rows["spots"].clip(lower=1).astype(float)
    known = rows[features].notna().mul(weight, axis=0).groupby(rows["patient"].to_numpy()).sum()
    total = rows[features].fillna(0.0).mul(weight, axis=0).groupby(rows["patient"].to_numpy()).sum()
    merged = rows.groupby("patient")[told].first()
    merged[["sections", "spots"]] = rows.groupby("patient")[["sections", "spots"]].sum()
    return merged.join(total.div(known.where(known > 0))).rename_axis(index="patient")


def feature_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of a features table that are features."""
    return [c for c in table if ":" in c and not c.startswith(CLINICAL)]
