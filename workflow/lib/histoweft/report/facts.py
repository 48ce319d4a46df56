"""The numbers of a sample that both pages show, gathered once from what the steps wrote."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from histoweft.report.html import percent, portable

UNITS = {"visium": "spots", "st": "spots", "visium_hd": "bins"}
"""What a barcode is on each platform; cells on all others."""

PLATFORMS = {
    "visium": "Visium",
    "visium_hd": "Visium HD",
    "xenium": "Xenium",
    "st": "Spatial Transcriptomics",
    "h5ad": "h5ad",
    "scrna": "single cells",
}

FROM_IMAGE_TITLE = "Expression from the H&E"
"""Heading of what the histology stage made, on both pages."""

STABLE_ARI = 0.8
"""Mean agreement between seeds below which clusters are called unstable."""

DESCRIBED = ("sample", "patient", "batch", "condition", "platform", "species")

FEW_BARCODES = 100
"""Fewer barcodes than this give clusters that mean little."""

REMOVED_SHARE = 0.5
"""A larger share removed by quality control calls for a look at the thresholds."""


def unit(platform: str) -> str:
    """Return what a barcode of a platform is: spots, bins or cells."""
    return UNITS.get(platform, "cells")


def sample_facts(
    counts: str | os.PathLike,
    filtered: str | os.PathLike,
    clusters: str | os.PathLike,
    qc: str | os.PathLike,
    stability: str | os.PathLike,
    metrics: str | os.PathLike,
    warnings: str | os.PathLike | Iterable[str | os.PathLike],
    resolution: float,
    stain: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Gather what the pages say about a sample.

    Parameters
    ----------
    counts, filtered
        h5ad before and after quality control; of `counts` only its size and description are read.
    clusters
        Parquet with a column ``leiden``.
    qc, stability, metrics
        Tables of the expression stage.
    warnings
        Text, a warning each line; one file or several.
    resolution
        The Leiden resolution in use.
    stain
        What the rule ``tile`` found in the section's image; None where there is no image to learn from.

    Returns
    -------
    dict
        Plain values that JSON can hold; None where something is not known.
    """
    from histoweft.io import CountsFile

    with CountsFile(counts) as before:
        about = before.uns.get("histoweft", {})
        facts = {name: str(about.get(name) or "") for name in DESCRIBED}
        facts |= {name: _known(about.get(name)) for name in ("mpp", "spot_diameter_um")}
        facts |= {"image": bool(about.get("image", False)), "located": "spatial" in before.obsm_names()}
        facts |= {"barcodes_in": before.n_obs, "genes_in": before.n_vars}
    with CountsFile(filtered) as after:
        obs = after.obs()
        facts |= {"barcodes": after.n_obs, "genes": after.n_vars}
    facts |= {
        f"median_{name}": _known(obs[f"n_{name}"].median()) if f"n_{name}" in obs else None
        for name in ("genes", "counts")
    }
    facts["median_pct_mito"] = _known(obs["pct_mito"].median()) if "pct_mito" in obs else None
    facts["labelled"] = int(obs["label"].notna().sum()) if "label" in obs else 0
    facts["labels"] = int(obs["label"].nunique()) if "label" in obs else 0
    sizes = pd.read_parquet(clusters, columns=["leiden"])["leiden"].astype(str).value_counts()
    facts |= {"clusters": len(sizes), "resolution": float(resolution)}
    facts["cluster_sizes"] = {name: int(sizes[name]) for name in sorted(sizes.index, key=_natural)}
    facts["qc"] = _records(pd.read_csv(qc, sep="\t"))
    facts["stability"] = _records(pd.read_csv(stability, sep="\t"))
    facts["label_ari"] = label_agreement(pd.read_csv(metrics, sep="\t"))
    facts["unit"] = unit(facts["platform"])
    facts["histology"] = None if stain is None else _of_image(stain)
    facts["warnings"] = [line for path in _each(warnings) for line in _lines(path)] + own_warnings(facts)
    if stain is not None:
        facts["warnings"] += facts["histology"]["warnings"]
    return facts


def _of_image(stain: str | os.PathLike) -> dict[str, Any]:
    """Return the rates and warnings of a section's image."""
    found = json.loads(Path(stain).read_text(encoding="utf-8"))
    rates = ("um_per_px", "tissue", "spots_outside", "n_tiles", "n_kept", "blank_rate", "blurred_rate")
    return {name: _known(found[name]) for name in rates} | {"warnings": [portable(text) for text in found["warnings"]]}


def _known(value: Any) -> float | None:
    """Return a number, or None where it is missing."""
    return None if value is None or not math.isfinite(value) else float(value)


def _natural(name: str) -> tuple[int, float, str]:
    return (0, float(name), "") if name.isdecimal() else (1, 0.0, name)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _each(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> list[str | os.PathLike]:
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


def _lines(path: str | os.PathLike) -> list[str]:
    """Return the lines of a file of warnings, without paths of this machine."""
    text = Path(path).read_text(encoding="utf-8")
    return [portable(line.strip()) for line in text.splitlines() if line.strip()]


def chosen_stability(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the stability table for the resolution in use, or an empty dict."""
    for row in facts["stability"]:
        if row.get("resolution") is not None and math.isclose(float(row["resolution"]), facts["resolution"]):
            return row
    return {}


def label_agreement(metrics: pd.DataFrame) -> float | None:
    """Return the ARI of the clusters in use against expert labels, None where there are no labels."""
    # Leiden on expression alone is a floor where domains are scored, so floors count here.
    rows = metrics.loc[(metrics["task"] == "domains") & (metrics["metric"] == "ari")]
    default = rows["note"].fillna("").astype(str).str.contains(r"\bdefault\b")
    values = rows.loc[default, "value"] if default.any() else rows["value"]
    return _known(values.iloc[0]) if len(values) else None


def own_warnings(facts: dict[str, Any]) -> list[str]:
    """Return what stands out in a sample's numbers."""
    found = []
    units, kept, given = facts["unit"], facts["barcodes"], facts["barcodes_in"]
    if given and kept < (1 - REMOVED_SHARE) * given:
        rows = [row for row in facts["qc"] if row["axis"] == "barcodes" and row["removed"]]
        most = max(rows, key=lambda row: row["removed"], default=None)
        by = f"; {most['removed']:,} of them by “{most.get('rule') or most['filter']}”" if most else ""
        found.append(
            f"quality control removed {percent(given - kept, given)} of the {units} "
            f"({given - kept:,} of {given:,}){by}. See where they lay before you trust what is left."
        )
    for row in facts["qc"]:
        if row["filter"] == "copies":
            found.append(
                f"{row['removed']:,} {units} were exact copies of others and were removed: was the same file joined "
                "twice?"
            )
    if kept < FEW_BARCODES:
        found.append(f"only {kept:,} {units} are left; clusters and markers of so few mean little.")
    ari = chosen_stability(facts).get("ari_mean")
    if ari is not None and ari < STABLE_ARI:
        found.append(
            f"the clusters are unstable: runs that differ in their seed alone agree with ARI {ari:.2f} on average. "
            "Look at the stability figure and consider another resolution."
        )
    if facts["clusters"] < 2:
        found.append("all of the tissue fell into one cluster, so there are no markers between clusters.")
    return found
