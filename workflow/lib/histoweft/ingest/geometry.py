"""Where the observations of an h5ad lie: its coordinates, libraries, scale factors and the images inside it.

What the file says goes before what can be guessed: names of columns before their order, micrometres before pitches,
and a pitch is assumed only where the places form that platform's lattice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from histoweft.ingest.section import NAN

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

GLOBAL = ("spatial_fov", "spatial_global", "X_spatial_global", "global")
"""Arrays of places on the whole section, beside ``spatial`` within a field of view."""
OBSM = (*GLOBAL, "spatial", "X_spatial", "X_spatial_coords", "spatial_um")
OBS_XY = (
    ("x_global_px", "y_global_px"),
    ("CenterX_global_px", "CenterY_global_px"),
    ("x_centroid", "y_centroid"),
    ("center_x", "center_y"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("imagecol", "imagerow"),
    ("x", "y"),
    ("spatial_x", "spatial_y"),
    ("x_location", "y_location"),
    ("pos_x", "pos_y"),
    ("CenterX_local_px", "CenterY_local_px"),
)
PIXELS = (("pxl_col_in_fullres", "pxl_row_in_fullres"), ("imagecol", "imagerow"))
"""Pairs of columns whose names say which of the two is x."""
X_NAMES = ("x", "imagecol", "pxl_col_in_fullres", "pxl_col", "col", "column", "x_centroid", "center_x", "centerx",
           "centroid_x", "x_um", "x_px", "x_pixel", "pixel_x", "spatial_x", "x_global_px", "centerx_global_px",
           "x_location", "x_coord", "coord_x", "x_coordinate", "xcoord", "cx", "pos_x", "array_col")  # fmt: skip
Y_NAMES = ("y", "imagerow", "pxl_row_in_fullres", "pxl_row", "row", "y_centroid", "center_y", "centery",
           "centroid_y", "y_um", "y_px", "y_pixel", "pixel_y", "spatial_y", "y_global_px", "centery_global_px",
           "y_location", "y_coord", "coord_y", "y_coordinate", "ycoord", "cy", "pos_y", "array_row")  # fmt: skip
Z_NAMES = ("z", "z_um", "z_centroid", "spatial_z", "z_location", "center_z")
FOV = ("fov", "fov_id", "fov_name", "field_of_view")
SMALLEST_IMAGE = 50
"""Pixels of the shorter side below which an array in a file is no picture of a tissue."""
_RESIDUAL = 0.1
_STRETCH = 1.05


@dataclass(frozen=True)
class Library:
    """One entry of ``uns['spatial']`` that describes a section.

    Parameters
    ----------
    name
        As the file calls it.
    images
        Kind (``hires``) -> place of the array in the file.
    scalefactors
        Its numbers.
    """

    name: str
    images: dict[str, str] = field(default_factory=dict)
    scalefactors: dict[str, float] = field(default_factory=dict)

    def number(self, *names: str) -> float:
        """Return the first of the named factors that is a number above 0, else NaN."""
        return next((self.scalefactors[n] for n in names if self.scalefactors.get(n, 0) > 0), NAN)


def libraries(handle, place: str = "uns/spatial", depth: int = 2) -> dict[str, Library]:
    """Return the libraries of an open h5ad: groups that hold ``images`` or ``scalefactors``, and nothing else.

    A name with a slash becomes nested groups on disk; a file of one section may hold both at the top.
    """
    import h5py

    group = handle.get(place)
    if not isinstance(group, h5py.Group):
        return {}
    parts = [part for part in ("images", "scalefactors") if isinstance(group.get(part), h5py.Group)]
    if parts:
        name = place.removeprefix("uns/spatial").strip("/")
        return {name: Library(name, _images(group, place), _numbers(group.get("scalefactors")))}
    found: dict[str, Library] = {}
    for name in group if depth else ():
        found |= libraries(handle, f"{place}/{name}", depth - 1)
    return found


def _images(group, place: str) -> dict[str, str]:
    """Return the arrays of a library's images that are large enough to show a tissue."""
    import h5py

    images = group.get("images")
    if not isinstance(images, h5py.Group):
        return {}
    return {
        name: f"{place}/images/{name}"
        for name, array in images.items()
        if isinstance(array, h5py.Dataset) and array.ndim in (2, 3) and min(array.shape[:2]) >= SMALLEST_IMAGE
    }


def _numbers(group) -> dict[str, float]:
    import h5py
    import numpy as np

    found = {}
    for name, stored in group.items() if isinstance(group, h5py.Group) else ():
        if isinstance(stored, h5py.Dataset) and stored.dtype.kind in "iuf" and stored.size == 1:
            found[name] = float(np.asarray(stored[()]).reshape(-1)[0])
    return found


def embedded_image(path: Path, subset: str) -> tuple[str, str] | None:
    """Return kind and place of the image inside an h5ad that can be used by itself: its scale is in the file too.

    Parameters
    ----------
    subset
        The sheet's rule; where the file holds several libraries, the one that it names is meant.

    Returns
    -------
    None where there is none, or where it does not follow from the sheet which library is meant.
    """
    import h5py

    try:
        with h5py.File(path, "r") as handle:
            found = libraries(handle)
            used = _library_used(handle, set(found)) if len(found) > 1 else None
    except (OSError, RuntimeError):
        return None  # the reader says what is wrong with the file
    if len(found) > 1 and (own := used) is not None:
        found = {own: found[own]}
    if len(found) > 1:
        words = {value.strip() for part in subset.split(";") for value in part.rpartition("=")[2].split("|")}
        found = {name: library for name, library in found.items() if name in words}
    if len(found) != 1:
        return None
    library = next(iter(found.values()))
    return next(
        (
            (kind, library.images[kind])
            for kind in ("hires", "fullres", "lowres")
            if kind in library.images and (kind == "fullres" or library.number(f"tissue_{kind}_scalef") > 0)
        ),
        None,
    )


def _library_used(handle, names: set[str]) -> str | None:
    """Return the library that a column of obs gives to all observations: the others were left behind by a selection."""
    import h5py
    import numpy as np

    from histoweft.ingest.tables import decode

    obs = handle.get("obs")
    for column in obs.values() if isinstance(obs, h5py.Group) else ():
        if isinstance(column, h5py.Group) and {"categories", "codes"} <= set(column):
            levels, codes = column["categories"], np.unique(column["codes"][:])
            if codes.size != 1 or codes[0] < 0 or levels.dtype.kind not in "OS":
                continue
            value = str(decode(levels[codes[0] : codes[0] + 1])[0])
        elif isinstance(column, h5py.Dataset) and column.ndim == 1 and column.size and column.dtype.kind in "OS":
            values = set(map(str, decode(column[:])))
            value = values.pop() if len(values) == 1 else ""
        else:
            continue
        if value in names:
            return value
    return None


# ---------------------------------------------------------------------------------------------------- coordinates


def named_xy(frame: pd.DataFrame) -> tuple[np.ndarray, str] | None:
    """Return (n, 2) or (n, 3) coordinates of a table by the names of its columns; None where they say neither.

    Columns that are only numbered (``0`` and ``1``, ``spatial_1`` and ``spatial_2``) are taken in that order.
    """
    import re

    lower = {str(name).casefold(): name for name in frame.columns}
    pick = [next((lower[n] for n in names if n in lower), None) for names in (X_NAMES, Y_NAMES, Z_NAMES)]
    if pick[0] is None or pick[1] is None:
        numbers = {re.sub(r"\D+", "", str(name)): name for name in frame.columns}
        if len(numbers) != frame.shape[1] or "" in numbers or len(numbers) < 2:
            return None
        pick = [numbers[key] for key in sorted(numbers, key=int)][:3]
    columns = [name for name in pick if name is not None]
    return frame[columns].to_numpy(dtype=float), f"columns {', '.join(map(str, columns))}"


def candidates(
    obsm: Mapping[str, np.ndarray | pd.DataFrame], obs: pd.DataFrame, path: Path
) -> list[tuple[str, np.ndarray]]:
    """Return every set of coordinates in a file, the likeliest first: (how it is called, (n, 2) or (n, 3)).

    Raises
    ------
    InputError
        A table of coordinates whose column names say neither x nor y.
    """
    from histoweft.ingest.tables import stop

    found = []
    for name in (name for name in OBSM if name in obsm):
        stored = obsm[name]
        if not hasattr(stored, "columns"):
            found.append((f"obsm['{name}']", stored))
            continue
        named = named_xy(stored)
        if named is None:
            listed = ", ".join(map(str, stored.columns[:8]))
            hint = "Name the columns x and y (or imagecol and imagerow), or write a plain array with x first."
            stop(f"{path}, obsm['{name}']", f"a table with columns {listed}", "columns that say which one is x", hint)
        found.append((f"obsm['{name}'], {named[1]}", named[0]))
    lower = {str(column).casefold(): column for column in reversed(obs.columns)}
    for names in OBS_XY:
        pair = [lower.get(name.casefold()) for name in names]
        if None not in pair and (xy := _numbers_of(obs[pair])) is not None:
            found.append((f"obs columns {pair[0]}, {pair[1]}", xy))
    return found


def _numbers_of(frame: pd.DataFrame) -> np.ndarray | None:
    """Return columns as numbers, also where they are stored as texts or categories; None where a value is no number."""
    import numpy as np
    import pandas as pd

    columns = [pd.to_numeric(frame[name].astype(object), errors="coerce") for name in frame]
    if any((column.isna() & frame[name].notna()).any() for name, column in zip(frame, columns)):
        return None
    return np.column_stack([column.to_numpy(float) for column in columns])


def fov_column(obs: pd.DataFrame) -> str | None:
    """Return the column of fields of view, where there are several."""
    return next((c for c in obs.columns if str(c).casefold() in FOV and obs[c].nunique() > 1), None)


def exchanged(obs: pd.DataFrame, xy: np.ndarray) -> str:
    """Return the pair of obs columns that shows an array to hold y first, or an empty string."""
    import numpy as np
    import pandas as pd

    for x, y in PIXELS:
        if {x, y} <= set(obs.columns) and all(pd.api.types.is_numeric_dtype(obs[c]) for c in (x, y)):
            named = obs[[x, y]].to_numpy(float)
            same, turned = (np.nanmax(np.abs(named - xy[:, order])) < 1.5 for order in ([0, 1], [1, 0]))
            return f"{x}, {y}" if turned and not same else ""
    return ""


def placeholders(xy: np.ndarray) -> np.ndarray:
    """Return which observations (n,) have no place but what a program wrote for want of one.

    Several on the very point (0, 0) or (-1, -1), where no other place is held by so many, or the smallest integer.
    """
    import numpy as np

    unset = (xy <= np.iinfo(np.int32).min).any(axis=1)
    for value in (0, -1):
        here = (xy == value).all(axis=1)
        if 3 <= here.sum() < len(xy):
            others = np.unique(xy[~here], axis=0, return_counts=True)[1]
            unset |= here if others.max() < here.sum() / 2 + 1 else False
    return unset


# ---------------------------------------------------------------------------------------------------------- scale


def lattice_of(positions: pd.DataFrame) -> str:
    """Return ``hexagonal``, ``square`` or an empty string: the lattice that places form over their array positions.

    Parameters
    ----------
    positions
        Frame with x, y, array_row, array_col; spots without one of them are left out.
    """
    import numpy as np

    known = positions[["x", "y", "array_row", "array_col"]].to_numpy(float)
    known = known[np.isfinite(known).all(axis=1)]
    if len(known) < 6:
        return ""
    known = known[:: max(1, len(known) // 100_000)] if len(known) > 200_000 else known
    rows, columns = known[:, 2], known[:, 3]
    even = bool(((rows + columns) % 2 == 0).all() or ((rows + columns) % 2 == 1).all())
    # neighbours in one row of a hexagonal array are two columns apart, rows sqrt(3)/2 of that
    grids = {"square": np.column_stack([columns, rows])}
    if even:
        grids = {"hexagonal": np.column_stack([columns / 2, rows * 3**0.5 / 2])} | grids
    return next((name for name, grid in grids.items() if _fits(grid, known[:, :2])), "")


def _fits(grid: np.ndarray, pixels: np.ndarray) -> bool:
    """Return whether pixels are the grid turned, scaled and moved, without stretching it."""
    import numpy as np

    grid, pixels = grid - grid.mean(axis=0), pixels - pixels.mean(axis=0)
    if np.linalg.matrix_rank(grid) < 2:
        return False
    slope, *_ = np.linalg.lstsq(grid, pixels, rcond=None)
    long, short = np.linalg.svd(slope, compute_uv=False)
    off = np.sqrt(((pixels - grid @ slope) ** 2).sum(axis=1).mean())
    return bool(short > 0 and long <= _STRETCH * short and off <= _RESIDUAL * short)
