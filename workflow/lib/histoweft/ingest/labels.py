"""Expert labels from a table beside the data, or from a column of the file itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoweft.errors import Faults, nearest
from histoweft.ingest import tables
from histoweft.ingest.mtx import is_running
from histoweft.ingest.section import Notes
from histoweft.paths import lookalike

KEY_NAMES = set(
    "barcode barcodes cell cells cell_id cellid cell_ids cell_barcode cell_name cellname spot spots spot_id spotid "
    "bin bin_id entityid entity_id object_id".split()
)
ID_NAMES = {"id", "ids", "name", "names", "index", "row.names", "rownames", "row_names"}
UNNAMED = re.compile(r"^(?:unnamed: \d+)?$")
# what is left of a barcode without what programs put before and behind it: 10x, Visium HD, Xenium
CORE = re.compile(r"(?:^|[^A-Za-z])([ACGT]{8,}|s_\d{3}um_\d{5}_\d{5}|[a-p]{8})(?:[^A-Za-z]|$)")
WHOLE_NUMBER = re.compile(r"^0*(\d+)(?:\.0+)?$")
LEAST_SHARE = 0.1  # of the spots, or of the table's rows, that must meet
NOT_LABELS = {"x", "y", "pixel_x", "pixel_y", "new_x", "new_y", "array_row", "array_col", "in_tissue", "selected"}


def from_column(obs: pd.DataFrame | None, column: str, where: str, faults: Faults) -> pd.Series | None:
    """Return the labels held in an obs column."""
    column = lookalike(column, [] if obs is None else obs.columns)
    if obs is None or column not in obs:
        columns = [] if obs is None else [str(c) for c in obs.columns]
        listed = ", ".join(columns[:12]) or "none"
        faults.add(where, repr(column), f"a table, or an obs column (has: {listed})", nearest(column, columns))
        return None
    return _clean(obs[column])


def from_table(
    path: Path,
    barcodes: np.ndarray,
    spot_names: np.ndarray | None,
    column: str,
    where: str,
    faults: Faults,
    notes: Notes,
) -> pd.Series | None:
    """Return one label a barcode (NaN where the table has none).

    Parameters
    ----------
    barcodes
        n names of the matrix.
    spot_names
        n names ``XxY`` of the array positions, which a table with columns x and y is matched by (rounded).
    column
        The label column; empty means the only column that is neither barcode nor coordinate.
    """
    table = None
    with tables.attempt(faults, path, "a table with a barcode and a label column"):
        table = _read(path)
    if table is None:
        return None
    if table.empty:
        faults.add(str(path), "a table without rows", "a barcode and a label a row")
        return None
    if column in table.attrs.get("twice", []):
        faults.add(
            f"{path}, column {column}", "this name twice", "each column once", "Remove or rename one of the two."
        )
        return None
    key = _best_key(table, barcodes, spot_names, path, faults, notes)
    if key is None:
        return None
    wanted = _label_column(table, column, key.column, path, where, faults)
    if wanted is None:
        return None
    names = pd.Index(key.values)
    known = names.notna() & ~names.isin(["nan", ""])
    table, names = table[known], names[known]
    if names.has_duplicates:
        table, names = _once(table, names, wanted, path, faults, notes)
    rows = names.get_indexer(pd.Index(key.source))
    if (rows < 0).any():
        notes.add(
            "labels_partial", f"{int((rows < 0).sum())} of {len(rows)} spots have no row in {path.name}: unlabelled"
        )
    values = table[wanted].to_numpy(object)
    labels = _clean(pd.Series(np.where(rows >= 0, values[np.maximum(rows, 0)], None), index=barcodes))
    if labels.isna().all():
        notes.add("labels_empty", f"column {wanted} of {path.name} has no label for any spot: all are unlabelled")
    return labels


def _once(table: pd.DataFrame, names: pd.Index, wanted: str, path: Path, faults: Faults, notes: Notes):
    """Return the table and its names without repeated ones; a name with two different labels is a fault."""
    first = names.duplicated(keep="first")
    found = _clean(table[wanted]).astype(object).fillna("")
    unlike = found.groupby(np.asarray(names, object)).nunique()
    unlike = unlike[unlike > 1]
    if len(unlike):
        faults.add(
            f"{path}, column {wanted}",
            f"{len(unlike)} barcodes with more than one label (first: {unlike.index[0]})",
            "one label a barcode",
            "If the table holds several samples, give the rows of this one alone.",
        )
    else:
        notes.add("label_duplicates", f"{int(first.sum())} rows of {path.name} repeat a barcode: the first one counts")
    return table[~first], names[~first]


def _read(path: Path) -> pd.DataFrame:
    """Read a table as text; row names that R wrote without a header become a column without a name."""
    table = tables.read_table(path, dtype=str)
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index(names="Unnamed: 0")
    table.columns = [str(c).strip() for c in table.columns]
    return table


@dataclass(frozen=True)
class Key:
    """One way in which a column of a table may name the spots.

    Parameters
    ----------
    column, values
        The column, and its values in the form in which they are compared.
    source
        The spots' names in that form.
    tier
        0 called like a barcode, 1 called like an identifier, 2 any other or without a name, 3 a running number
        without a name.
    form
        What was done to make the two alike; empty where nothing was.
    """

    column: str
    values: np.ndarray
    source: np.ndarray
    tier: int
    form: str = ""

    @property
    def rows(self) -> np.ndarray:
        """The first row of each spot, -1 where it has none."""
        names = pd.Index(self.values)
        first = ~names.duplicated(keep="first")
        at = pd.Index(names[first]).get_indexer(pd.Index(self.source))
        return np.where(at >= 0, np.flatnonzero(first)[np.maximum(at, 0)], -1)

    @property
    def share(self) -> float:
        """Share of the spots, or of the table's rows, that meet: the larger."""
        n = int((self.rows >= 0).sum())
        return max(n / max(1, len(self.source)), n / max(1, len(self.values)))


def _best_key(table: pd.DataFrame, barcodes, spot_names, path: Path, faults: Faults, notes: Notes) -> Key | None:
    """Return the column that names the spots: by its name first, then by how many it shares; told, and never a tie."""
    barcodes = np.asarray([str(b) for b in barcodes], object)
    keys = [key for column in table.columns if (key := _column_key(table, column, barcodes, spot_names))]
    if (key := _grid_key(table, spot_names)) is not None:
        keys.append(key)
    fits = [key for key in keys if key.tier < 3 and key.share >= LEAST_SHARE]
    # a running number without a name counts rows: it names spots only where it names all of them
    fits = fits or [key for key in keys if key.tier == 3 and set(key.values) == set(barcodes)]
    if not fits:
        _no_key(table, keys, barcodes, path, faults)
        return None
    most = max(key.share for key in fits)
    fits = [key for key in fits if key.share >= most / 2]
    first = min(key.tier for key in fits)
    fits = sorted((key for key in fits if key.tier == first), key=lambda key: -key.share)
    best = fits[0]
    for other in fits[1:]:
        if other.share >= 0.9 * best.share and (other.rows != best.rows).any():
            faults.add(
                str(path),
                f"two columns that both fit the barcodes and name different rows: {best.column!r} and {other.column!r}",
                "one column of barcodes",
                "Rename the right one to barcode, or remove the other.",
            )
            return None
    taken = f"column {best.column!r} of {path.name}" + (f", {best.form}" if best.form else "")
    notes.choose("labels key", taken)
    return best


def _column_key(table: pd.DataFrame, column: str, barcodes: np.ndarray, spot_names) -> Key | None:
    """Return the first form in which most of a column's values are names of spots; None where none is."""
    values = table[column].astype(object).map(lambda v: "" if pd.isna(v) else str(v).strip()).to_numpy(object)
    name = column.casefold()
    unnamed = bool(UNNAMED.match(name)) or name in ("index", "row.names", "rownames")
    tier = 0 if name.replace(" ", "_") in KEY_NAMES else 1 if name in ID_NAMES else 2
    tier = 3 if unnamed and is_running(list(values)) else tier
    forms = [Key(column, values, barcodes, tier)]
    if spot_names is not None:
        forms.append(Key(column, values, np.asarray(spot_names, object), tier, "by array position"))
    for same, form in ((_numbers, "as numbers"), (_cores, "without what is put before and behind the barcodes")):
        found = same(values), same(barcodes)
        if tier < 3 and found[0] is not None and found[1] is not None:
            forms.append(Key(column, *found, tier, form))
    best = max(forms, key=lambda key: key.share)
    if tier == 2 and len(set(values)) < 0.5 * len(values):  # a column of groups, of which some are called like a spot
        return None
    # the row names of a part of the spots have gaps, and every one of them is a spot's name
    part = unnamed and set(best.values) <= set(best.source)
    if tier == 2 and not part and _numbers(values) is not None and (best.rows >= 0).mean() < 0.9:  # some quantity
        return None
    return best if best.share > 0 else None


def _numbers(values: np.ndarray) -> np.ndarray | None:
    """Return whole numbers in one form (``0001`` and ``1.0`` as ``1``); None where not all are, or two become one."""
    matches = [WHOLE_NUMBER.match(v) for v in values if v]
    if not matches or not all(matches):
        return None
    out = np.array([WHOLE_NUMBER.match(v).group(1) if v else "" for v in values], object)
    return out if len(set(out)) == len(set(values)) else None


def _cores(values: np.ndarray) -> np.ndarray | None:
    """Return barcodes without prefix and suffix, where all have the same ones; else None."""
    out, around = [], set()
    for value in values:
        match = CORE.search(value)
        if value and not match:
            return None
        out.append(match.group(1) if match else "")
        if match:
            around.add((value[: match.start(1)], value[match.end(1) :]))
    return np.array(out, object) if len(around) == 1 else None


def _grid_key(table: pd.DataFrame, spot_names) -> Key | None:
    """Return the columns x and y as a key, where spots are named by array position."""
    lower = {c.casefold(): c for c in table.columns}
    if spot_names is None or not {"x", "y"} <= set(lower):
        return None
    x, y = (pd.to_numeric(table[lower[c]], errors="coerce").round() for c in "xy")
    names = [f"{int(a)}x{int(b)}" if np.isfinite(a) and np.isfinite(b) else "" for a, b in zip(x, y)]
    return Key(lower["x"], np.array(names, object), np.asarray(spot_names, object), 0, "x and y, rounded")


def _no_key(table: pd.DataFrame, keys: list[Key], barcodes: np.ndarray, path: Path, faults: Faults) -> None:
    """Note that no column names the spots, with the reason where it is known."""
    listed, shown = ", ".join(table.columns[:8]), ", ".join(map(str, barcodes[:2]))
    expected = "a barcode column (or x and y of the spot array) that matches the counts"
    running = [key for key in keys if key.tier == 3]
    if running and all(key.tier == 3 for key in keys):
        found = f"no column that names the barcodes ({shown}): {running[0].column!r} only numbers the rows"
        faults.add(str(path), f"{found} (columns: {listed})", expected, "Write the table with its barcodes.")
        return
    if keys:
        best = max(keys, key=lambda key: key.share)
        n = int((best.rows >= 0).sum())
        found = f"only {n} of {len(barcodes)} barcodes ({shown}) in column {best.column!r}"
        faults.add(str(path), found, expected, "Is this the table of another sample?")
        return
    first = ", ".join(map(str, table.iloc[0].tolist()[:4]))
    faults.add(
        str(path),
        f"no column shares a value with the barcodes ({shown}); columns: {listed}; first row: {first}",
        expected,
        "Is this the table of another sample?",
    )


def _is_no_label(name: str) -> bool:
    return name in NOT_LABELS or name in KEY_NAMES or name in ID_NAMES or bool(UNNAMED.match(name))


def _label_column(table: pd.DataFrame, column: str, key: str, path: Path, where: str, faults: Faults) -> str | None:
    others = [c for c in table.columns if c != key and not _is_no_label(c.casefold())]
    if column:
        column = lookalike(column, table.columns)
        if column in table.columns:
            return column
        listed = ", ".join(table.columns[:12])
        faults.add(where, repr(column), f"a column of {path.name} (has: {listed})", nearest(column, table.columns))
        return None
    if len(others) == 1:
        return others[0]
    by_name = [c for c in others if c.casefold() in ("label", "labels", "layer", "annotation", "cell_type", "celltype")]
    if len(by_name) == 1:
        return by_name[0]
    listed = ", ".join(others[:12]) or "none"
    faults.add(
        where, "nothing", f"the label column of {path.name}, one of: {listed}", "Give the sheet's column labels_column."
    )
    return None


def _clean(values: pd.Series) -> pd.Series:
    """Return labels as a categorical; empty texts and NA are missing."""
    text = values.astype(object).where(values.notna(), None)
    text = text.map(lambda v: None if v is None or str(v).strip() in ("", "NA", "nan", "None") else str(v).strip())
    return pd.Series(pd.Categorical(text), index=values.index, name="label")
