"""Where the points of a sample lie, and what is known of each: groups and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histoweft import places, plotting
from histoweft.explorer import payload

MAX_CATEGORIES = 200
"""A text column with more values than this is a name, not a group."""

HEADINGS = {
    "Expert": {"label": "Expert label"},
    "Clusters": {"joint_cluster": "Cluster, all sections together", "leiden": "Cluster"},
    "Cell types": {"cell_type": "Cell type", "cell_type_probability": "Probability of the cell type"},
    "Tissue": {"domain": "Domain", "niche": "Niche"},
    "Quality": {"n_counts": "Counts", "n_genes": "Genes", "pct_mito": "Mitochondrial counts, %"},
}
"""Heading in the list of colourings -> columns of obs and their titles; the first group there is shown first."""

BLOCKS = {"proportions": "Share of cell types"}
"""Arrays of obsm whose columns are named in uns, and their headings."""

TABLES = {"fates": "Fate", "states": "State"}
"""Tables of further stages whose columns are all shown, and their headings."""

_LEFT_OUT = ("sample", "patient", "batch", "condition", "array_row", "array_col", "in_tissue")
_RESOLUTION = re.compile(r"leiden_([\d.]+)")
_UNKNOWN = "unknown"


def positions(xy: np.ndarray, y_up: bool = False) -> tuple[dict[str, Any], list[float]]:
    """Return positions as the page takes them.

    Parameters
    ----------
    xy
        n x 2 in the units shown; rows that are not finite are not drawn.
    y_up
        Whether y grows upwards, as in an embedding; on the page it grows downwards.

    Returns
    -------
    dict
        x and y: packed uint16 over the bounds.
    list
        Bounds: smallest x and y, largest x and y.
    """
    xy = np.asarray(xy, dtype=np.float64)[:, :2] * (1, -1 if y_up else 1)
    xy = np.where(np.isfinite(xy).all(axis=1, keepdims=True), xy, np.nan)
    (x, x0, x1), (y, y0, y1) = (payload.quantise(xy[:, axis]) for axis in (0, 1))
    return {"x": payload.pack(x), "y": payload.pack(y)}, [x0, y0, x1, y1]


def diameter(about: Mapping[str, Any], xy: np.ndarray, micrometres: bool) -> float:
    """Return the diameter at which points are drawn, in the units of `xy`.

    Spots have their own diameter; cells, and whatever has none, fill 85 % of the way to their neighbour.

    Parameters
    ----------
    about
        ``uns['histoweft']``: spot_diameter_um.
    xy
        n x 2.
    micrometres
        Whether `xy` is in micrometres.
    """
    um = about.get("spot_diameter_um")
    if um and np.isfinite(um) and micrometres:
        return float(um)
    return 0.85 * places.spacing(xy[np.isfinite(xy).all(axis=1)])


def described(
    obs: pd.DataFrame,
    blocks: Mapping[str, tuple[list[str], np.ndarray]],
    tables: Mapping[str, pd.DataFrame],
) -> Iterator[tuple[str, str, pd.Series]]:
    """Go through all that points can be coloured by.

    Parameters
    ----------
    obs
        Table of the points.
    blocks
        Name in `BLOCKS` -> names of the columns, and the array.
    tables
        Name in `TABLES` -> table, in the order of the points.

    Yields
    ------
    Heading, title and values of each column.
    """
    titles = {column: (heading, title) for heading, group in HEADINGS.items() for column, title in group.items()}
    for column, (heading, title) in titles.items():
        if column in obs:
            yield heading, title, obs[column]
    for column in obs.columns.difference([*titles, *_LEFT_OUT], sort=False):
        resolution = _RESOLUTION.fullmatch(str(column))
        if resolution:
            yield "Clusters", f"Cluster, resolution {resolution[1]}", obs[column]
        else:
            yield "Further", str(column).replace("_", " "), obs[column]
    for name, (names, values) in blocks.items():
        for index, title in enumerate(names):
            yield BLOCKS[name], str(title), pd.Series(values[:, index])
    for name, table in tables.items():
        for column in table:
            yield TABLES[name], str(column).replace("_", " "), table[column]


def encoded(values: pd.Series) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return a column as the page takes it; None where it is neither groups nor numbers.

    Parameters
    ----------
    values
        One value a point.

    Returns
    -------
    about
        kind ``category`` with the categories that occur, or kind ``number`` with low, high (the ends of the 16 bits)
        and limits (1st and 99th percentile, the ends of the colours).
    content
        The packed codes.
    """
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if numeric and not isinstance(values.dtype, pd.CategoricalDtype):
        return _numbers(values.to_numpy(dtype=np.float64, na_value=np.nan))
    column = pd.Categorical(values)
    names = [str(name) for name in column.categories]
    used = np.unique(column.codes[column.codes >= 0])
    if len(used) > MAX_CATEGORIES:
        return None
    used = [i for i in used if _is_label(names[i])]
    if not used:
        return None
    # The last entry is that of points without a value, whose code is -1.
    codes = np.full(len(names) + 1, payload.MISSING[np.dtype(np.uint8)], dtype=np.uint8)
    codes[used] = np.arange(len(used))
    about = {"kind": "category", "categories": [names[i] for i in used]}
    return about, {"codes": payload.pack(codes[column.codes])}


def _is_label(name: str) -> bool:
    """Return whether a name is that of a group; figures grey out what stands for no label, and so does the page."""
    return plotting.category_colours([name])[name] != plotting.UNLABELLED


def _numbers(values: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]] | None:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    codes, low, high = payload.quantise(values)
    limits = [float(value) for value in np.percentile(finite, (1, 99))]
    if limits[0] == limits[1]:
        limits = [low, high]
    return {"kind": "number", "low": low, "high": high, "limits": limits}, {"codes": payload.pack(codes)}


def category_scheme(columns: list[Mapping[str, Any]]) -> dict[str, str]:
    """Return one colour for each group of a column over all samples, those of the figures.

    Parameters
    ----------
    columns
        The column's `about` of each sample; ``colours`` where the sample's file has them.
    """
    names = sorted({name for column in columns for name in column["categories"]}, key=_natural)
    pairs = {pair for column in columns for pair in column.get("colours", {}).items()}
    scheme = dict(pairs)
    agree = len(scheme) == len(pairs) and set(names) <= set(scheme)
    distinct = len(set(scheme.values())) == len(scheme)
    if not (agree and distinct):
        scheme = plotting.category_colours([name for name in names if name != _UNKNOWN])
    return {name: plotting.UNLABELLED if name == _UNKNOWN else scheme[name] for name in names}


def _natural(name: str) -> tuple:
    """Sort key that puts 2 before 10, words after numbers and the unknown last."""
    return (name == _UNKNOWN, not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def write_points(folder: Path, sample: str, places: Mapping[str, np.ndarray | None]) -> dict[str, list[float] | None]:
    """Write where the points lie, and return the bounds of each kind of place; None where there is none.

    Parameters
    ----------
    folder, sample
        Where to, and the sample's name.
    places
        ``tissue``, ``umap`` (of the sample alone) and ``joint`` (of all samples together); n x 2 or None.
    """
    content, bounds = {}, {}
    for name, xy in places.items():
        bounds[name] = None
        if xy is not None:
            content[name], bounds[name] = positions(xy, y_up=name != "tissue")
    payload.write(folder, f"{sample}/points", content)
    return bounds
