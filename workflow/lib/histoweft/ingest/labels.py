"""Expert labels from a table beside the data, or from a column of the file itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from histoweft.errors import Faults, nearest
from histoweft.ingest import checks, tables
from histoweft.ingest.section import Notes

BARCODE_NAMES = (
    "barcode",
    "barcodes",
    "spot",
    "spot_id",
    "cell",
    "cell_id",
    "cellid",
    "row.names",
    "unnamed: 0",
    "index",
    "id",
    "",
)
NOT_LABELS = {"x", "y", "pixel_x", "pixel_y", "new_x", "new_y", "array_row", "array_col", "in_tissue", "selected"}


def from_column(obs: pd.DataFrame | None, column: str, where: str, faults: Faults) -> pd.Series | None:
    """Return the labels held in an obs column."""
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
        table = tables.read_table(path, dtype=str)
        if not isinstance(table.index, pd.RangeIndex):  # written by R: row names without a header
            table = table.reset_index(names="barcode")
        table.columns = [str(c).strip() for c in table.columns]
    if table is None:
        return None
    key, names, source = _best_key(table, barcodes, spot_names)
    if key is None:
        listed = ", ".join(table.columns[:8])
        faults.add(
            str(path),
            f"no column shares a value with the barcodes ({', '.join(map(str, barcodes[:2]))}); columns: {listed}; "
            f"first row: {', '.join(map(str, table.iloc[0].tolist()[:4])) if len(table) else 'none'}",
            "a barcode column (or x and y of the spot array) that matches the counts",
            "Is this the table of another sample?",
        )
        return None
    wanted = _label_column(table, column, key, path, where, faults)
    if wanted is None:
        return None
    names = pd.Index(names)
    known = names.notna() & ~names.isin(["nan", ""])
    table, names = table[known], names[known]
    if names.has_duplicates:
        first = names.duplicated(keep="first")
        notes.add("label_duplicates", f"{int(first.sum())} rows of {path.name} repeat a barcode: the first one counts")
        table, names = table[~first], names[~first]
    rows = names.get_indexer(pd.Index(source))
    if (rows < 0).any():
        notes.add(
            "labels_partial", f"{int((rows < 0).sum())} of {len(rows)} spots have no row in {path.name}: unlabelled"
        )
    values = table[wanted].to_numpy(object)
    return _clean(pd.Series(np.where(rows >= 0, values[np.maximum(rows, 0)], None), index=barcodes))


def _best_key(table: pd.DataFrame, barcodes, spot_names):
    """Return (column, its values, the names they match): the candidate sharing most values with the spots."""
    candidates = []
    for column in table.columns:
        values = table[column].astype(str).str.strip()
        named = column.casefold() in BARCODE_NAMES
        candidates.append((column, values, np.asarray(barcodes, object), named))
        if spot_names is not None:
            candidates.append((column, values, spot_names, named))
    bare = np.asarray(checks.without_suffix(barcodes), object)
    if len(set(bare)) == len(bare):
        for column in table.columns:
            if column.casefold() in BARCODE_NAMES:
                candidates.append((column, pd.Series(checks.without_suffix(table[column].astype(str))), bare, False))
    lower = {c.casefold(): c for c in table.columns}
    if spot_names is not None and {"x", "y"} <= set(lower):
        x, y = (pd.to_numeric(table[lower[c]], errors="coerce").round() for c in "xy")
        names = [f"{int(a)}x{int(b)}" if np.isfinite(a) and np.isfinite(b) else None for a, b in zip(x, y)]
        candidates.append(("x", pd.Series(names), spot_names, True))
    best, score = (None, None, None), 0.0
    for column, values, source, named in candidates:
        shared = len(set(source) & set(values))
        # a sort tie goes to the column that is called like a barcode
        if shared + 0.5 * named * (shared > 0) > score:
            best, score = (column, values, source), shared + 0.5 * named
    return best


def _label_column(table: pd.DataFrame, column: str, key: str, path: Path, where: str, faults: Faults) -> str | None:
    others = [
        c for c in table.columns if c != key and c.casefold() not in NOT_LABELS and c.casefold() not in BARCODE_NAMES
    ]
    if column:
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
