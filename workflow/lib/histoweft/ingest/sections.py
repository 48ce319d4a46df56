"""Whether one sample of the sheet holds one section: several in one file lie on one another unnoticed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from histoweft import places
from histoweft.errors import Faults
from histoweft.ingest import geometry
from histoweft.ingest.section import Notes

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SUFFIX, PLANE = "barcode_suffix", "z"
"""Columns that a rule `subset` can name in any file: what stands around a barcode, and a third coordinate."""
SECTION_NAMES = {"libraryid", "library", "libraryname", "slide", "slideid", "slidename", "slideidnumeric", "section",
                 "sectionid", "sectionname", "sectionlabel", "brainsection", "brainsectionlabel", "slice", "sliceid",
                 "slicename", "puck", "puckid", "capturearea", "tissuesection", "runtissuename", "plane", "zplane",
                 "bregma", "spatiallibrary"}  # fmt: skip
"""Columns that tell sections apart by their name, without case and punctuation."""
MAYBE_NAMES = {"sample", "sampleid", "samplename", "samples", "origident", "batch", "replicate", "run", "image",
               "imagename", "imagenb", "imageid", "roi", "dataset", "core", "tma", "fov", "fovid", "fovname",
               "fieldofview"}  # fmt: skip
"""Columns that tell sections apart only where their parts lie on one another."""
MAX_PARTS = 200
_FEWEST_EACH = 5
_FEWEST = 20
_OVERLAP = 0.5
# DNA, the letters of Xenium's cell names, the bins and cells of Visium HD; Space Ranger appends the gem group
_CORE = re.compile(r"(?<![A-Za-z])(?:[ACGTN]{6,}|[a-p]{8}|s_\d{3}um_\d{5}_\d{5}|cellid_\d{9})(?![A-Za-z\d])")


@dataclass(frozen=True)
class Parts:
    """A way to take a file apart.

    Parameters
    ----------
    column
        What a rule `subset` names.
    sizes
        Value -> observations.
    overlaid
        Whether the parts lie on one another.
    """

    column: str
    sizes: dict[str, int]
    overlaid: bool

    def __str__(self) -> str:
        shown = ", ".join(f"{value} ({n:,})" for value, n in list(self.sizes.items())[:6])
        more = f" and {len(self.sizes) - 6} more" if len(self.sizes) > 6 else ""
        return f"{len(self.sizes)} values of {self.column}: {shown}{more}"


def suffixes(barcodes: Sequence[str]) -> np.ndarray | None:
    """Return what stands around the DNA of each barcode (``1`` of AAAC-1, ``1-L2`` of AAAC-1-L2), or None."""
    import numpy as np

    found = []
    for barcode in barcodes:
        match = _CORE.search(str(barcode))
        if match is None:
            return _joined(barcodes)
        rest = str(barcode)[: match.start()] + str(barcode)[match.end() :]
        found.append(rest.strip("-_:. "))
    return np.array(found, dtype=object)


def _joined(barcodes: Sequence[str]) -> np.ndarray | None:
    """Return what was appended to numbered cells to join files (``0`` of 17-0), or None: most numbers come again."""
    import pandas as pd

    parts = pd.Series(list(map(str, barcodes))).str.extract(r"^(?P<core>\d+)[-_](?P<tag>\w{1,20})$")
    cores, tags = parts["core"].nunique(), parts["tag"].nunique()
    again = len(parts) - cores
    # 3_14 of an array and fov_cell have as many of the one as of the other, or more
    if parts.isna().any(axis=None) or tags < 2 or cores < 10 * tags or again < 0.3 * len(parts):
        return None
    return parts["tag"].to_numpy(object)


def planes(z: np.ndarray) -> bool:
    """Return whether a third coordinate takes few values, each held by many: sections, no depth within one."""
    import numpy as np

    values, sizes = np.unique(z[np.isfinite(z)], return_counts=True)
    return 1 < len(values) <= MAX_PARTS and bool(np.median(sizes) >= _FEWEST_EACH) and len(values) < len(z) / 10


def overlaid(values: Sequence, xy: np.ndarray | None) -> bool:
    """Return whether the parts of a section lie on one another: most pairs share half of the smaller one's extent."""
    import numpy as np
    import pandas as pd

    if xy is None:
        return False
    frame = pd.DataFrame({"part": pd.Series(values).astype(str).to_numpy(), "x": xy[:, 0], "y": xy[:, 1]}).dropna()
    boxes = frame.groupby("part").agg(["min", "max"]).to_numpy()[:MAX_PARTS]  # x low, x high, y low, y high
    low, high = boxes[:, [0, 2]], boxes[:, [1, 3]]
    size = np.maximum(high - low, 1e-9)
    first, second = np.triu_indices(len(boxes), k=1)
    if not len(first):
        return False
    shared = np.minimum(high[first], high[second]) - np.maximum(low[first], low[second])
    smaller = np.minimum(size[first], size[second])
    share = np.clip(shared / smaller, 0, None).prod(axis=1)
    return bool((share > _OVERLAP).mean() > 0.5)


def ways(
    obs: pd.DataFrame, xy: np.ndarray | None, barcodes: Sequence[str], libraries: Iterable[str] = ()
) -> list[Parts]:
    """Return the columns that take a file apart into sections, the surest first.

    Parameters
    ----------
    obs
        Columns of the n observations (may be empty).
    xy
        (n, 2), or None where places are not known.
    libraries
        Names in ``uns['spatial']``.
    """
    import pandas as pd

    named = set(map(str, libraries))
    found: list[tuple[int, Parts]] = []
    for column in obs.columns:
        name, values = str(column), obs[column]
        plain = _plain(name)
        is_library = len(named) > 1 and values.nunique() > 1 and set(map(_text, values.dropna().unique())) <= named
        if not (is_library or plain in SECTION_NAMES or plain in MAYBE_NAMES or name == PLANE):
            continue
        parts = _parts(name, values, xy)
        if parts is None or (name == PLANE and not planes(pd.to_numeric(values, errors="coerce").to_numpy(float))):
            continue
        is_fov = name.casefold() in geometry.FOV
        sure = (is_library and not is_fov) or plain in SECTION_NAMES or name == PLANE
        if sure or (parts.overlaid and not _one_lattice(xy)):
            found.append((0 if is_library else 1 if sure else 2, parts))
    tags = suffixes(barcodes)
    if tags is not None and (parts := _parts(SUFFIX, pd.Series(tags), xy)) is not None:
        found.append((3, parts))
    return [parts for _, parts in sorted(found, key=lambda entry: entry[0])]


def _one_lattice(xy: np.ndarray) -> bool:
    """Return whether these are the spots of one lattice, each place held once: no batch there is a second section."""
    return places.duplicate_share(xy) == 0 and places.lattice(xy) > 0


def _plain(name: str) -> str:
    """Return a column's name without case and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def repeats_hint(obs: pd.DataFrame | None, barcodes: Sequence[str], cell: str) -> str:
    """Return what to do about repeated barcodes: which column tells those of one name apart, or that none does."""
    import pandas as pd

    index = pd.Index(barcodes)
    if not index.has_duplicates:
        return ""
    if column := _column_apart(obs, pd.DataFrame({"barcode": index})):
        return (
            f"Within each value of {column} a barcode occurs once: one sample is one section, so write "
            f"{column}={obs[column].astype(str).iloc[0]} into {cell}."
        )
    return "No column tells observations of one name apart: was a file joined with itself? Leave out the copies."


def _column_apart(obs: pd.DataFrame | None, keys: pd.DataFrame) -> str | None:
    """Return the column within each value of which every key (a row of n) occurs once; known names go first."""
    columns = [] if obs is None else [c for c in obs.columns if 1 < obs[c].nunique() <= MAX_PARTS]
    known = SECTION_NAMES | MAYBE_NAMES
    keys = keys.reset_index(drop=True)
    for column in sorted(columns, key=lambda c: (_plain(str(c)) not in known, obs[c].nunique())):
        if not keys.assign(_part=obs[column].astype(str).to_numpy()).duplicated().any():
            return column
    return None


def _text(value: object) -> str:
    return str(value)


def _parts(column: str, values: pd.Series, xy: np.ndarray | None) -> Parts | None:
    """Return how a column divides the observations; None where it does not, or into crumbs."""
    sizes = values.astype(str).where(values.notna()).value_counts()
    if not 1 < len(sizes) <= MAX_PARTS or sizes.median() < _FEWEST_EACH:
        return None
    return Parts(column, {str(k): int(n) for k, n in sizes.sort_index().items()}, overlaid(values, xy))


def check(
    obs: pd.DataFrame,
    xy: np.ndarray,
    barcodes: Sequence[str],
    libraries: Sequence[str],
    vouched: Iterable[str],
    on_lattice: bool,
    source: str,
    cell: str,
    where: str,
    faults: Faults,
    notes: Notes,
) -> None:
    """Note a fault where a sample holds more than one section, or places that no section has.

    Parameters
    ----------
    obs, xy, barcodes
        The n observations that the sheet keeps; xy is finite.
    libraries
        Names in ``uns['spatial']`` that may be theirs.
    vouched
        Columns that the sheet's rule `subset` names: parts that a person put together on purpose, where they do not
        lie on one another.
    on_lattice
        Spots or bins, which never share a place.
    source
        The file, as `./histoweft split` takes it.
    cell
        How the sheet's cell of `subset` is called.
    """
    found = ways(obs, xy, barcodes, libraries)
    vouched = set(vouched)
    # who names a column and several of its values says that these lie side by side
    open_ways = [parts for parts in found if parts.overlaid or parts.column not in vouched]
    if open_ways:
        parts = open_ways[0]
        value = next(iter(parts.sizes))
        lie = ", which lie on one another" if parts.overlaid else ""
        hint = (
            f"One sample is one section: write {parts.column}={value} into {cell}, and give each section a line of its "
            f"own. `./histoweft split {source}` writes these lines."
        )
        if not parts.overlaid:
            both = "|".join(list(parts.sizes)[:12]) + ("|..." if len(parts.sizes) > 12 else "")
            hint += f" Where the parts lie side by side on purpose, name them all: {parts.column}={both}."
        elif _plain(parts.column) in MAYBE_NAMES | {PLANE}:
            hint += f" Where it is one section all the same, write the file without {parts.column}."
        faults.add(where, f"several sections in one sample: {parts}{lie}", "one section", hint)
        return
    if len(libraries) > 1 and geometry.fov_column(obs) is None and not vouched:
        told = (
            f"{len(libraries)} libraries in uns['spatial'] ({', '.join(libraries[:6])}), and no column that says whose"
        )
        hint = "Keep one library in the file, or add an obs column of their names and take one by the column subset."
        faults.add(where, f"{told} each observation is", "one section", hint)
        return
    _check_array(obs, xy, vouched, cell, where, faults)
    if not faults:
        _check_places(obs, xy, on_lattice, cell, where, faults, notes)


def _check_array(obs: pd.DataFrame, xy: np.ndarray, vouched: set[str], cell: str, where: str, faults: Faults) -> None:
    """Note a fault where spots hold one array position twice, wherever they lie: a slide has each once.

    Unless a column that the sheet names, with several of its values, takes them apart; or these are no spots but cells
    with the array position of their spot: those before the first repetition then form no lattice.
    """
    import numpy as np
    import pandas as pd

    if not {"array_row", "array_col"} <= set(obs) or len(obs) < _FEWEST:
        return
    array = obs[["array_row", "array_col"]].astype(object).dropna()
    again = array.duplicated().to_numpy()
    twice = int(again.sum())
    whole = pd.DataFrame(xy, index=obs.index, columns=["x", "y"]).join(array.apply(pd.to_numeric, errors="coerce"))
    if not twice or not geometry.lattice_of(whole.loc[array.index].iloc[: int(np.argmax(again))]):
        return
    told_apart = _column_apart(obs.loc[:, [c for c in obs if c in vouched]], obs[["array_row", "array_col"]])
    if twice > places.MAX_DUPLICATES_ON_LATTICE * len(array) and told_apart is None:
        told = f"{twice:,} of {len(array):,} observations on an array position that another one holds"
        expected = "one section, with a spot on each array_row and array_col"
        hint = "Was a file joined with another, or with itself? No column tells them apart."
        faults.add(where, told, expected, _apart_hint(obs.loc[array.index], cell, array, hint))


def _apart_hint(obs: pd.DataFrame, cell: str, keys: pd.DataFrame, otherwise: str) -> str:
    """Return which column takes observations apart that share a place, and what to write."""
    if column := _column_apart(obs, keys):
        value = obs[column].astype(str).iloc[0]
        return f"Within each value of {column} they do not: is it one section each? Write {column}={value} into {cell}."
    return otherwise


def _check_places(
    obs: pd.DataFrame, xy: np.ndarray, on_lattice: bool, cell: str, where: str, faults: Faults, notes: Notes
) -> None:
    """Judge places that no column takes apart by its name."""
    import pandas as pd

    if len(xy) > 2 and (xy == xy[0]).all():
        hint = "Are these coordinates? Read the positions again and write the file anew."
        faults.add(where, f"all {len(xy):,} observations on one point", "places spread over one section", hint)
    if len(xy) < _FEWEST or faults:
        return
    share = places.duplicate_share(xy)
    most = places.MAX_DUPLICATES_ON_LATTICE if on_lattice else places.MAX_DUPLICATES
    if share > most or _one_coordinate(xy):
        hint = "Are these the coordinates of a field of view, or several sections? No column tells them apart."
        if share > most:
            hint = _apart_hint(obs, cell, pd.DataFrame(xy), hint)
        faults.add(where, places.fault_of(xy, on_lattice), "places spread over one section", hint)
    elif share > places.TOLD_DUPLICATES:
        told = f"{round(share * len(xy)):,} of {len(xy):,} observations lie on a place that another one holds"
        both = "two sections on one another, or the same cells twice?"
        notes.add("shared_places", f"{told}, and no column tells them apart: {both}")
    elif places.is_collinear(xy):
        notes.add("one_line", f"all {len(xy):,} observations lie on one line: is one coordinate made from the other?")


def _one_coordinate(xy: np.ndarray) -> bool:
    """Return whether there is one coordinate only: the other constant, or the same again."""
    spread = xy.max(axis=0) - xy.min(axis=0)
    return bool(spread.min() <= 1e-9 * max(1.0, spread.max()) or (xy[:, 0] == xy[:, 1]).all())
