"""Single-cell data without coordinates: 10x h5, mtx folder, h5ad, loom, or a genes x cells table."""

from __future__ import annotations

import re
from pathlib import Path

from histoweft.errors import Faults
from histoweft.ingest import h5ad
from histoweft.ingest.layout import (
    MATRIX_H5,
    PACKED,
    TRIO,
    Folder,
    check_file,
    check_readable,
    column,
    find_matrix,
    find_trio,
    matrix_hint,
    one_prefix,
    open_folder,
    unpack_hint,
)
from histoweft.ingest.section import Discovery, Notes, RawSection, SampleInput

TABLE = re.compile(r"\.(?:csv|tsv|txt)(?:\.gz)?$", re.I)
EXPECTED = (
    "a 10x .h5, a folder with matrix.mtx, barcodes and features, an .h5ad or .loom, or a genes x cells .csv or .tsv"
)


def discover(path: Path, image: str | Path = "", where: str = "", **options) -> Discovery:
    """Find the file or the mtx trio."""
    found = Discovery()
    if path.is_dir() or not path.exists():
        folder = open_folder(path, where, found.faults, EXPECTED, prefix_ok=True)
        if folder is not None:
            if "outs" in folder.folders:
                folder = open_folder(path / "outs", where, found.faults, EXPECTED)
            _fill_matrix(found, folder, where)
    elif check_file(path, where, found.faults, EXPECTED):
        if not TABLE.search(path.name) and path.suffix.lower() not in (".h5", ".h5ad", ".loom"):
            bare = PACKED.sub("", path.name)
            hint = unpack_hint(bare, [path.name]) if bare.endswith((".h5", ".h5ad", ".loom")) else ""
            found.faults.add(where, path.name, EXPECTED, hint)
        found.roles["matrix"] = path
    if str(image) and str(image).lower() != "none":
        found.faults.add(
            column(where, "image"), str(image), "no image for platform scrna", "Leave the column image empty."
        )
    check_readable(found, where)
    return found


def _fill_matrix(found: Discovery, folder: Folder | None, where: str) -> None:
    """Fill in the matrix of an opened folder; Cell Ranger multi's folder ``count`` is looked into."""
    if folder is None:
        return
    if one_prefix(folder.matching(TRIO["matrix"]), TRIO["matrix"], found.faults, where, "matrices"):
        found.roles.update(find_trio(folder) or {})
    if found.roles or found.faults:
        return
    found.roles.update(find_matrix(folder, found.faults, where))
    if found.roles or found.faults:
        return
    if "count" in folder.folders:
        _fill_matrix(found, open_folder(folder.path / "count", where, found.faults, EXPECTED), where)
    elif "per_sample_outs" in folder.folders:
        one = "Give each sample's own folder a line of the sheet."
        found.faults.add(where, f"the samples of Cell Ranger multi in {folder.path / 'per_sample_outs'}", "one", one)
    else:
        hint = matrix_hint(folder, MATRIX_H5, "filtered_feature_bc_matrix.h5")
        found.faults.add(where, f"no count matrix {folder.summary()}", EXPECTED, hint)


def read(sample: SampleInput, found: Discovery, faults: Faults, notes: Notes) -> RawSection | None:
    """Read one single-cell sample."""
    from histoweft.ingest import tables

    path = found.roles["matrix"]
    if path.suffix.lower() in (".h5ad", ".loom"):
        return h5ad.read(sample, found, faults, notes, spatial=False)
    if not TABLE.search(path.name):
        matrix = tables.read_matrix(found.roles, faults, notes)
        return None if matrix is None else RawSection(**matrix, counts_where=str(path))
    with tables.attempt(faults, path, "a table of counts, genes x cells"):
        counts, genes, cells = tables.read_dense_counts(path, "genes x cells")
        if _gene_share(cells) > _gene_share(genes) or _barcode_share(genes) > _barcode_share(cells):
            notes.add("transposed", "the columns are genes: read as cells x genes")
            counts, genes, cells = counts.T, cells, genes
        counts = counts.T.tocsr()
        tables.check_shape(path, counts, cells, genes)
        return RawSection(counts=counts, barcodes=cells, gene_ids=genes, gene_names=genes, counts_where=str(path))
    return None


BARCODE = re.compile(r"(?:^|[^A-Za-z])[ACGT]{10,}(?:[^A-Za-z]|$)")
# found in nearly every cell: a list of names that holds them is one of genes
COMMON_GENES = {"actb", "gapdh", "malat1", "b2m", "eef1a1", "rplp0", "tmsb4x", "fth1", "tpt1", "mt-co1"}


def _gene_share(names) -> float:
    """Return the share of stable gene identifiers among names; at least half where genes of every cell are there."""
    from histoweft.ingest.mtx import STABLE_ID

    share = sum(bool(STABLE_ID.match(str(n))) for n in names) / max(1, len(names))
    return max(share if share > 0.5 else 0.0, 0.5 * any(str(n).casefold() in COMMON_GENES for n in names))


def _barcode_share(names) -> float:
    share = sum(bool(BARCODE.search(str(n))) for n in names) / max(1, len(names))
    return share if share > 0.5 else 0.0
