"""The atlas as every step of the stage sees it: expression and place of each voxel, and the structures they lie in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoweft.errors import InputError
from histoweft.io import atomic

#: Values of `expression` that one step of a pass over it holds: 16 MB as float32.
BUDGET = 4_000_000
REMAKE = "Delete it and run again: Snakemake makes it anew."


@dataclass(frozen=True)
class Voxels:
    """Expression at places in space.

    Parameters
    ----------
    expression
        float32, voxels x genes; NaN where there is no data. May be memory-mapped.
    position
        float32, voxels x 3: z (along the sections, antero-posterior), y (dorso-ventral), x (left-right), in voxels.
    genes
        One name a gene.
    voxel_um
        Side of a voxel, um.
    shape
        Grid that whole-number positions index; None where positions lie on no grid.
    midline
        x at which the organ folds onto itself, in voxels; None for an organ without two halves.
    structure
        int32, id of the structure each voxel lies in (0 for none); None without an annotation.
    structures
        One row a structure: id, acronym, name, parent (0 for a root), depth (0 for a root), and colour (``#rrggbb``)
        where known; None without a structure tree.
    mirrored
        Whether one half was filled in from the other, so that the halves are no independent data.
    notes
        Sentences on what preparation left out.
    """

    expression: np.ndarray
    position: np.ndarray
    genes: np.ndarray
    voxel_um: float
    shape: tuple[int, int, int] | None = None
    midline: float | None = None
    structure: np.ndarray | None = None
    structures: pd.DataFrame | None = None
    mirrored: bool = False
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of voxels."""
        return len(self.position)

    def folded(self) -> np.ndarray:
        """Return positions with x replaced by the distance to the midline (as they are where there is none)."""
        if self.midline is None:
            return self.position
        return np.column_stack([self.position[:, :2], np.abs(self.position[:, 2] - np.float32(self.midline))])

    def hemisphere(self) -> np.ndarray | None:
        """Return the half each voxel lies in (int8; 1 from the midline on, 0 before), None without a midline."""
        if self.midline is None:
            return None
        return (self.position[:, 2] >= self.midline).astype(np.int8)

    def ancestors(self, depth: int) -> np.ndarray:
        """Return the id of each voxel's ancestor at a depth of the structure tree.

        Parameters
        ----------
        depth
            0 for the roots.

        Returns
        -------
        ndarray
            int32; a structure less deep than that stands for itself, and 0 stays 0.

        Raises
        ------
        ValueError
            The atlas has no annotation or no structure tree.
        """
        if self.structure is None or self.structures is None:
            raise ValueError("ancestors need an annotation and a structure tree")
        tree = self.structures.set_index("id")
        ids, voxel = np.unique(self.structure, return_inverse=True)
        at = {0: 0}
        for start in ids[ids != 0].tolist():
            here = start
            while tree.at[here, "depth"] > depth:
                here = int(tree.at[here, "parent"])
            at[start] = here
        return np.array([at[i] for i in ids.tolist()], np.int32)[voxel]


def row_chunks(shape: tuple[int, int], budget: int = BUDGET) -> Iterator[slice]:
    """Yield slices of rows that hold at most `budget` values each (at least one row)."""
    step = max(1, budget // max(1, shape[1]))
    for start in range(0, shape[0], step):
        yield slice(start, min(shape[0], start + step))


def gene_moments(expression: np.ndarray) -> pd.DataFrame:
    """Return mean, variance and missing (share of voxels) of each gene, in one pass over chunks of rows.

    Parameters
    ----------
    expression
        voxels x genes; NaN where there is no data.

    Returns
    -------
    DataFrame
        Moments of the values that are there (variance with denominator n); NaN for a gene without any.
    """
    n_genes = expression.shape[1]
    n, mean, square = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes)
    for rows in row_chunks(expression.shape):
        chunk = np.asarray(expression[rows])
        there = ~np.isnan(chunk)
        more = there.sum(0)
        filled = np.where(there, chunk, np.float32(0))
        own = filled.sum(0, dtype=float) / np.maximum(more, 1)
        spread = (filled - own.astype(np.float32)) * there
        # Chan, Golub & LeVeque 1983: moments of two parts joined without cancellation.
        total = np.maximum(n + more, 1)
        square += np.einsum("ij,ij->j", spread, spread, dtype=float) + (own - mean) ** 2 * n * more / total
        mean += (own - mean) * more / total
        n += more
    with np.errstate(invalid="ignore", divide="ignore"):
        return pd.DataFrame(
            {
                "mean": np.where(n > 0, mean, np.nan),
                "variance": np.where(n > 0, square / n, np.nan),
                "missing": 1 - n / max(1, len(expression)),
            }
        )


def write(
    voxels: Voxels,
    expression_path: str | os.PathLike,
    table_path: str | os.PathLike,
    genes_path: str | os.PathLike,
    meta_path: str | os.PathLike,
    structures_path: str | os.PathLike | None = None,
    about: pd.DataFrame | None = None,
) -> None:
    """Write an atlas.

    Parameters
    ----------
    voxels
        The atlas.
    expression_path
        ``.npy``, voxels x genes. What lies there is left alone when it is what `voxels.expression` maps.
    table_path
        ``.parquet``: z, y, x and structure (0 where unknown) of each voxel.
    genes_path
        ``.tsv``: gene, mean, variance, missing, and the columns of `about`.
    meta_path
        ``.json``: voxel_um, shape, midline, mirrored, notes, and whether there is an annotation.
    structures_path
        ``.tsv``: the structure tree; only its header where the atlas has none. None to leave it out.
    about
        Further columns a gene, in the order of `voxels.genes`.
    """
    expression = voxels.expression
    mapped = getattr(expression, "filename", None)
    if mapped is None or Path(mapped).resolve() != Path(expression_path).resolve():
        stream_rows(expression_path, expression.shape, (expression[rows] for rows in row_chunks(expression.shape)))
    table = pd.DataFrame(voxels.position.astype(np.float32), columns=["z", "y", "x"])
    table["structure"] = np.int32(0) if voxels.structure is None else voxels.structure.astype(np.int32)
    with atomic(table_path) as partial:
        table.to_parquet(partial, index=False)
    genes = pd.concat([pd.DataFrame({"gene": voxels.genes}), gene_moments(expression)], axis=1)
    if about is not None:
        genes = pd.concat([genes, about.reset_index(drop=True)], axis=1)
    with atomic(genes_path) as partial:
        genes.to_csv(partial, sep="\t", index=False, float_format="%.6g")
    meta = {
        "voxel_um": float(voxels.voxel_um),
        "shape": None if voxels.shape is None else [int(size) for size in voxels.shape],
        "midline": None if voxels.midline is None else float(voxels.midline),
        "annotated": voxels.structure is not None,
        "mirrored": bool(voxels.mirrored),
        "notes": list(voxels.notes),
    }
    with atomic(meta_path) as partial:
        partial.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    if structures_path is not None:
        none = pd.DataFrame(columns=["id", "acronym", "name", "parent", "depth"])
        with atomic(structures_path) as partial:
            (none if voxels.structures is None else voxels.structures).to_csv(partial, sep="\t", index=False)


def stream_rows(path: str | os.PathLike, shape: tuple[int, int], chunks: Iterable[np.ndarray]) -> None:
    """Write a float32 ``.npy`` whose rows arrive in chunks, so that the whole need never be in memory.

    Parameters
    ----------
    path
        Where to; written atomically.
    shape
        Rows and columns in all.
    chunks
        Consecutive rows.

    Raises
    ------
    ValueError
        The chunks do not add up to the shape.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(int(size) for size in shape)}
    done = 0
    with atomic(path) as partial:
        with open(partial, "wb") as handle:
            np.lib.format.write_array_header_1_0(handle, header)
            for chunk in chunks:
                if chunk.shape[1:] != tuple(shape[1:]):
                    raise ValueError(f"{path}: a chunk of {chunk.shape[1]} columns, not {shape[1]}")
                handle.write(np.ascontiguousarray(chunk, "<f4").data)
                done += len(chunk)
        if done != shape[0]:
            raise ValueError(f"{path}: {done} rows, not {shape[0]}")


def read(
    expression_path: str | os.PathLike,
    table_path: str | os.PathLike,
    genes_path: str | os.PathLike,
    meta_path: str | os.PathLike,
    structures_path: str | os.PathLike | None = None,
) -> Voxels:
    """Read what `write` wrote; the expression stays on disk, mapped for reading.

    Raises
    ------
    InputError
        A file is missing, damaged, or of another atlas than the others.
    """
    try:
        expression = np.load(expression_path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError.one(expression_path, error, "an array of voxels x genes (npy)", REMAKE) from error
    table = _readable(table_path, pd.read_parquet)
    genes = _readable(genes_path, read_tsv)
    meta = _readable(meta_path, lambda path: json.loads(Path(path).read_text(encoding="utf-8")))
    if expression.shape != (len(table), len(genes)):
        found = f"{expression.shape[0]} voxels x {expression.shape[1]} genes"
        raise InputError.one(expression_path, found, f"{len(table)} x {len(genes)}, as in the tables", REMAKE)
    structures = _readable(structures_path, read_tsv) if structures_path is not None else None
    return Voxels(
        expression,
        table[["z", "y", "x"]].to_numpy(np.float32),
        genes["gene"].to_numpy(str),
        meta["voxel_um"],
        None if meta["shape"] is None else tuple(meta["shape"]),
        meta["midline"],
        table["structure"].to_numpy(np.int32) if meta["annotated"] else None,
        None if structures is None or structures.empty else structures,
        meta["mirrored"],
        tuple(meta["notes"]),
    )


def read_tsv(path: str | os.PathLike) -> pd.DataFrame:
    """Read a table whose text columns may hold words such as ``NA`` or ``nan``, which are names of genes too."""
    text = {name: str for name in ("gene", "acronym", "name", "colour")}
    return pd.read_csv(path, sep="\t", dtype=text, keep_default_na=False, na_values={"mean": [""], "variance": [""]})


def _readable(path, reader):
    try:
        return reader(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError.one(path, error, "a file written by the rule prepare_atlas", REMAKE) from error
