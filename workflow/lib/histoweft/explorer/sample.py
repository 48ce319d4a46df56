"""Everything the page shows of one sample, in one folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histoweft import io
from histoweft.explorer import genes, payload, pictures, points

ABOUT = "sample.json"
"""What the study's page has to know of a sample before it loads any of it."""

_FACTS = ("patient", "batch", "condition", "platform", "species")


def write_sample(
    folder: str | os.PathLike,
    *,
    sample: str,
    h5ad: str | os.PathLike,
    image: str | os.PathLike | None,
    painted: str | os.PathLike | None,
    joint: str | os.PathLike | None,
    wanted: str,
    tables: Mapping[str, str | os.PathLike] | None = None,
) -> dict[str, Any]:
    """Write a sample's folder.

    Parameters
    ----------
    folder
        Where to; created.
    sample
        Its name.
    h5ad
        The assembled sample: X log-normalised; obs, obsm and uns as `report.assemble` leaves them.
    image
        The working image; None where there is none.
    painted
        The store of painted genes; None where there is none.
    joint
        Clusters of all sections together, its index ``<sample>:<barcode>``; None for a single section.
    wanted
        Which genes: ``all`` or ``variable``.
    tables
        Names of `points.TABLES` to barcode-indexed tables of further stages.

    Returns
    -------
    dict
        What `ABOUT` holds.

    Raises
    ------
    InputError
        A file cannot be read, or was made from other barcodes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    with io.CountsFile(h5ad) as counts:
        facts, obs = counts.uns.get("histoweft", {}), counts.obs()
        unit, known = _unit(facts.get("mpp"))
        stored = counts.obsm_names()
        places = {
            "tissue": counts.obsm("spatial")[:, :2] * unit if "spatial" in stored else None,
            "umap": counts.obsm("X_umap") if "X_umap" in stored else None,
            "joint": None,
        }
        if joint:
            table = io.read_table(joint, [f"{sample}:{barcode}" for barcode in obs.index])
            places["joint"] = table[["umap_1", "umap_2"]].to_numpy(dtype=float)
            obs["joint_cluster"] = pd.Categorical(table["leiden"].astype(str).to_numpy())
        further = {name: io.read_table(path, obs.index) for name, path in (tables or {}).items()}
        tissue = places["tissue"]
        about: dict[str, Any] = {
            "name": sample,
            "points": counts.n_obs,
            "unit": "um" if known else "px",
            **{name: str(facts.get(name) or "") for name in _FACTS},
            "bounds": points.write_points(folder, sample, places),
            "diameter": None if tissue is None else points.diameter(facts, tissue, known),
            "columns": _write_columns(folder, sample, points.described(obs, _blocks(counts), further), counts.uns),
            "image": _image(folder, image, unit) if image and tissue is not None else None,
            "painted": pictures.write_painted(folder, sample, painted) if painted and known else None,
        }
        payload.write(folder, f"{sample}/barcodes", payload.pack_text([str(name) for name in counts.obs_names]))
        always = about["painted"]["genes"] if about["painted"] else []
        offered = genes.chosen(counts.var(), counts.n_obs, wanted, always)
        about["genes"] = genes.write_genes(folder, sample, counts, offered)
    (folder / ABOUT).write_text(json.dumps(about, allow_nan=False), encoding="utf-8")
    return about


def _unit(mpp: float | None) -> tuple[float, bool]:
    """Return micrometres per full-resolution pixel, or 1 where they are not known, and whether they are."""
    known = mpp is not None and np.isfinite(mpp) and mpp > 0
    return (float(mpp), True) if known else (1.0, False)


def _image(folder: Path, image: str | os.PathLike, unit: float) -> dict[str, Any]:
    """Write the tiles; return what places them, `step`: units a pixel of the finest level."""
    about = pictures.write_tiles(folder / "tiles", image)
    return {**about, "step": unit / about.pop("scale")}


def _write_columns(
    folder: Path, sample: str, described: Iterable[tuple[str, str, pd.Series]], uns: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Write what points can be coloured by, a file each; return what they are."""
    columns = []
    for heading, title, values in described:
        found = points.encoded(values)
        if found is None:
            continue
        about, content = found
        about |= {"heading": heading, "title": title, "file": f"column-{len(columns)}"}
        if about["kind"] == "category":
            about["colours"] = _colours(uns, str(values.name), values)
        payload.write(folder, f"{sample}/{about['file']}", content)
        columns.append(about)
    return columns


def _blocks(counts: io.CountsFile) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return the arrays whose columns are named in uns: name -> (names of the columns, points x columns)."""
    found = {}
    for name in points.BLOCKS:
        described: Mapping[str, Any] = counts.uns.get(name, {})
        names = next((list(value) for value in described.values() if np.ndim(value) == 1), None)
        if names and name in counts.obsm_names():
            found[name] = (names, counts.obsm(name))
    return found


def _colours(uns: Mapping[str, Any], column: str, values: pd.Series) -> dict[str, str]:
    """Return the colour that the file gives each group; nothing where it gives none."""
    colours = uns.get(f"{column}_colors")
    if colours is None or not isinstance(values.dtype, pd.CategoricalDtype):
        return {}
    return dict(zip(map(str, values.cat.categories), map(str, colours)))
