"""Several sections in one file: what takes it apart, and the lines of a sample sheet that read the parts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from histoweft.errors import Faults, InputError, nearest
from histoweft.ingest.section import Notes, SampleInput
from histoweft.validation import RESERVED, safe_name

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = ("sample", "platform", "path", "subset")
MAX_LISTED = 12


@dataclass
class Contents:
    """What a file holds, its counts left aside.

    Attributes
    ----------
    platform
        The sheet's word for it.
    obs
        One line an observation (n); what stands around barcodes and third coordinates are columns, too.
    xy
        (n, 2); NaN where a place is not known, None where the file knows none.
    libraries
        Names in ``uns['spatial']``.
    """

    platform: str
    obs: pd.DataFrame
    xy: np.ndarray | None = None
    libraries: list[str] = field(default_factory=list)


def look(path: Path) -> Contents:
    """Read what a file says of its observations.

    Parameters
    ----------
    path
        An h5ad or loom file, a 10x matrix with its positions, or the folder of a platform.

    Raises
    ------
    InputError
        Where the file cannot be read.
    """
    from histoweft.ingest import sections

    faults = Faults()
    contents = _look_anndata(path, faults) if path.suffix.lower() in (".h5ad", ".loom") else _look_folder(path, faults)
    faults.raise_if_any()
    tags = sections.suffixes(contents.obs.index)
    if tags is not None and sections.SUFFIX not in contents.obs:
        contents.obs[sections.SUFFIX] = tags
    return contents


def _look_anndata(path: Path, faults: Faults) -> Contents | None:
    """Read the columns and places of an h5ad or loom file; no matrix is read."""
    import h5py
    import pandas as pd

    from histoweft.ingest import geometry, h5ad, sections, tables
    from histoweft.ingest.layout import check_file

    if not check_file(path, "split", faults, "an .h5ad or .loom file"):
        return None
    contents = None
    with tables.attempt(faults, path, "an AnnData or loom file"), h5py.File(path, "r") as handle:
        if "obs" in handle:
            obs = h5ad._frame(handle, "obs")
            stored = h5ad._stored_places(handle, path, len(obs))
            libraries = list(geometry.libraries(handle))
        elif "col_attrs" in handle:
            obs = h5ad._attributes(handle["col_attrs"])
            stored, libraries = {}, []
        else:
            tables.stop(path, f"groups {', '.join(sorted(handle)[:6]) or 'none'}", "an AnnData or a loom file")
        obs.index = pd.Index(obs.index.astype(str), name="barcode")
        sets = geometry.candidates(stored, obs, path)
        fov = geometry.fov_column(obs)
        apart = [xy for _, xy in sets if fov is None or not sections.overlaid(obs[fov], xy)]
        xy = (apart or [xy for _, xy in sets] or [None])[0]
        if xy is not None and xy.shape[1] > 2 and sections.PLANE not in obs:
            obs[sections.PLANE] = xy[:, 2]
        contents = Contents("scrna" if xy is None else "h5ad", obs, None if xy is None else xy[:, :2], libraries)
    return contents


def _look_folder(path: Path, faults: Faults) -> Contents | None:
    """Read the barcodes and places of a folder, or of a matrix with its positions beside it."""
    import numpy as np
    import pandas as pd

    from histoweft.ingest import readers, scrna, spaceranger, xenium

    tried: dict[str, Faults] = {}
    reads = {"visium": spaceranger.read, "visium_hd": spaceranger.read_hd, "xenium": xenium.read, "scrna": scrna.read}
    if (path / "spatial").exists():
        reads.pop("scrna")  # a section whose positions are lacking is no suspension of cells
    for platform, read in reads.items():
        found = readers.discover(platform, path, where="split")
        if found.faults:
            tried[platform] = found.faults
            continue
        raw = read(SampleInput(path.name, platform, path, where="split"), found, faults, Notes())
        if raw is None:
            return None
        obs = pd.DataFrame(index=pd.Index(raw.barcodes.astype(str), name="barcode")) if raw.obs is None else raw.obs
        xy = None if raw.positions is None else raw.positions[["x", "y"]].reindex(obs.index).to_numpy(float)
        return Contents(platform, obs.copy(), None if xy is None or np.isnan(xy).all() else xy)
    marks = {"visium_hd": "binned_outputs", "xenium": "experiment.xenium"}
    faults.extend(tried[next((name for name, mark in marks.items() if (path / mark).exists()), "visium")])
    return None


def ways(contents: Contents, by: str = "") -> list:
    """Return what takes the file apart, the surest way first, or the column that is asked for.

    Raises
    ------
    InputError
        Where the file has no such column, or its values are too few or too many.
    """
    from histoweft.ingest import sections

    found = sections.ways(contents.obs, contents.xy, contents.obs.index, contents.libraries)
    if not by and contents.xy is None:  # cells lie on nothing, and suffixes are often all that a merge left of names
        return [way for way in found if way.column != sections.SUFFIX]
    if not by:
        return found
    known = [way for way in found if way.column == by]
    if known:
        return known
    columns = list(map(str, contents.obs.columns))
    if by not in columns:
        listed = ", ".join(columns[:MAX_LISTED]) or "none"
        raise InputError.one("split --by", repr(by), f"a column of the file (has: {listed})", nearest(by, columns))
    sizes = contents.obs[by].dropna().astype(str).value_counts().sort_index()
    if not 1 < len(sizes) <= sections.MAX_PARTS:
        expected = f"a column of 2 to {sections.MAX_PARTS} values"
        raise InputError.one("split --by", f"{by!r}, which has {len(sizes)} values", expected)
    parts = {str(value): int(n) for value, n in sizes.items()}
    return [sections.Parts(by, parts, sections.overlaid(contents.obs[by], contents.xy))]


def describe(path: Path, contents: Contents, found: Iterable) -> str:
    """Return what the file holds, for people."""
    lines = [f"{path}: {len(contents.obs):,} observations, platform {contents.platform}"]
    if contents.libraries:
        lines.append(f"libraries in uns['spatial']: {', '.join(contents.libraries[:MAX_LISTED])}")
    found = list(found)
    for way in found:
        lie = ", which lie on one another" if way.overlaid else ""
        lines.append(f"column {way.column}: {len(way.sizes)} parts{lie}")
        lines += [f"  {value}: {n:,} observations{_extent(contents, way.column, value)}" for value, n in _first(way)]
        if len(way.sizes) > MAX_LISTED:
            lines.append(f"  and {len(way.sizes) - MAX_LISTED} more")
        lost = len(contents.obs) - sum(way.sizes.values())
        if lost:
            lines.append(f"  {lost:,} observations have no value there: no line reads them")
    if not found:
        few = [str(name) for name in contents.obs if 1 < contents.obs[name].nunique() <= MAX_LISTED]
        lines.append("Nothing shows that it holds several sections.")
        lines.append(f"--by takes it apart by a column: {', '.join(few[:MAX_LISTED])}" if few else "")
    return "\n".join(line for line in lines if line)


def _first(way) -> list[tuple[str, int]]:
    return list(way.sizes.items())[:MAX_LISTED]


def _extent(contents: Contents, column: str, value: str) -> str:
    """Return from where to where a part lies."""
    import numpy as np

    if contents.xy is None:
        return ""
    xy = contents.xy[(contents.obs[column].astype(str) == value).to_numpy()]
    xy = xy[np.isfinite(xy).all(axis=1)]
    if not len(xy):
        return ", without places"
    (x0, y0), (x1, y1) = xy.min(axis=0), xy.max(axis=0)
    return f", x {x0:,.6g} to {x1:,.6g}, y {y0:,.6g} to {y1:,.6g}"


def sample_names(values: Iterable[str], stem: str) -> dict[str, str]:
    """Return a sample name for each value, with the file's name where it is a bare number."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for value in values:
        name = safe_name(value)
        if not re.search("[A-Za-z]", value) or name.casefold() in RESERVED:
            name = f"{safe_name(stem)}_{name}"
        single, number = name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{single}_{number}"
        taken.add(name.casefold())
        names[value] = name
    return names


def sheet(path: str, stem: str, platform: str, way) -> str:
    """Return the lines of a sample sheet that read the parts, with a header.

    Parameters
    ----------
    path
        Of the file, as the sheet needs it.
    stem
        Its name, for samples whose value says too little.
    way
        What takes it apart.
    """
    names = sample_names(way.sizes, stem)
    written = io.StringIO()
    lines = csv.writer(written, delimiter="\t", lineterminator="\n")
    lines.writerow(COLUMNS)
    lines.writerows([name, platform, path, f"{way.column}={value}"] for value, name in names.items())
    return written.getvalue()
