"""Drawn inputs of every platform: a small `Truth`, an `Encoding` of it, and folders written from the two.

Every choice is a plain value, so that a failing test prints the smallest truth and encoding that fail. Nothing here is
random but by the seeds in them: the same truth and encoding write the same bytes.
"""

import gzip
import json
import struct
import zlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from hypothesis import strategies as st

PLATFORMS = ("visium", "visium_hd", "xenium", "h5ad", "st", "scrna")
PITCH_PX = {"visium": 100.0, "visium_hd": 16.0, "xenium": 30.0, "h5ad": 100.0, "st": 50.0, "scrna": 1.0}
IN_FULLRES = ["pxl_row_in_fullres", "pxl_col_in_fullres"]
ODD_NAMES = ("5'-FOO", 'B"AR', "HLA-A", "NA1", "7SK", "Gene 8", "IGHV1/OR15-1", "#9")


class Shown:
    """Prints as the choices that differ from the usual ones."""

    def __repr__(self):
        told = [
            (item.name, getattr(self, item.name)) for item in fields(self) if getattr(self, item.name) != item.default
        ]
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in told)})"

    def _repr_pretty_(self, printer, cycle):  # how hypothesis prints what failed
        printer.text(repr(self))


@dataclass(frozen=True, repr=False)
class Truth(Shown):
    """What a sample holds, whatever it is written as.

    Parameters
    ----------
    rows, cols, genes
        Size of the array and of the panel.
    off
        How many places at the end of the array lie off the tissue.
    seed
        Of the counts.
    shift
        Moves which places are off the tissue, so that two samples differ.
    odd_names
        Whether some genes have names that a careless reader of text stumbles over.
    zoom
        Multiplies every pixel coordinate: another microscope.
    """

    rows: int = 4
    cols: int = 4
    genes: int = 5
    off: int = 0
    seed: int = 0
    shift: int = 0
    odd_names: bool = False
    zoom: float = 1.0

    @property
    def n(self):
        return self.rows * self.cols

    @cached_property
    def counts(self):
        """(n, genes) whole numbers; no place is empty, and some are above 1."""
        values = np.random.default_rng(self.seed).poisson(2.0, (self.n, self.genes))
        values[:, 0] += 2 + np.arange(self.n) % 3
        values[0, -1] += 1
        return values

    @cached_property
    def barcodes(self):
        """Names that belong to places of the array, so that every sample of one size shares them."""
        letters = np.array(list("ACGT"))
        return np.array(["".join(letters[(i * 7 >> (2 * np.arange(8))) & 3]) + "-1" for i in range(self.n)])

    @cached_property
    def ids(self):
        return np.array([f"ENSG{i:011d}" for i in range(1, self.genes + 1)])

    @cached_property
    def names(self):
        names = [f"GENE{i}" for i in range(1, self.genes + 1)]
        if self.odd_names:
            names[: len(ODD_NAMES)] = ODD_NAMES[: self.genes]
        return np.array(names)

    @cached_property
    def on(self):
        """Which places lie under the tissue."""
        on = np.ones(self.n, bool)
        on[self.n - self.off :] = False
        return np.roll(on, self.shift)

    @cached_property
    def labels(self):
        return np.array([f"layer {i % 3 + 1}" for i in range(self.n)])

    def array(self, platform):
        """(n, 2) array column and row."""
        row, col = np.divmod(np.arange(self.n), self.cols)
        return np.column_stack([2 * col + row % 2 if platform == "visium" else col, row])

    def xy(self, platform):
        """(n, 2) x and y in pixels."""
        pitch = PITCH_PX[platform] * self.zoom
        step = np.array([pitch / 2, pitch * 3**0.5 / 2]) if platform == "visium" else np.array([pitch, pitch])
        xy = self.array(platform) * step + (pitch, 1.5 * pitch)
        if platform in ("xenium", "h5ad"):  # cells lie on no lattice
            xy = xy + np.random.default_rng(self.seed + 1).uniform(-0.3, 0.3, xy.shape) * pitch
        return xy.round(3)

    def size(self, platform):
        """Width and height of the full-resolution image."""
        return tuple(np.ceil(self.xy(platform).max(axis=0) + PITCH_PX[platform] * self.zoom).astype(int).tolist())


@dataclass(frozen=True, repr=False)
class Text(Shown):
    """How a table is written; the same for lists, where what applies applies."""

    kind: str = "csv"  # csv | tsv | semicolon | parquet
    gz: bool = False
    header: bool = True
    columns: int = 0  # seed of the order of columns; 0 keeps it
    rows: int = 0  # seed of the order of rows; 0 keeps it
    bom: bool = False
    crlf: bool = False
    last_newline: bool = True
    quoted: bool = False
    floats: bool = False  # whole numbers written as 3.0
    words: str = "1"  # true in a column of yes and no: 1 | True | TRUE
    extra: bool = False  # a further column that is nobody's business
    codec: str = "snappy"  # of parquet
    strings: str = "str"  # of parquet: str | category | bytes
    as_index: bool = False  # of parquet: the first column is the index


@dataclass(frozen=True, repr=False)
class Matrix(Shown):
    """How counts are written."""

    kind: str = "h5"  # h5 | h5v2 | trio3 | trio2 | table
    dtype: str = "int32"
    indices: str = "int64"
    codec: str = ""  # "" | gzip | lzf
    strings: str = "fixed"  # fixed | variable
    barcodes: int = 0  # seed of the order of barcodes
    genes: int = 0  # seed of the order of genes
    entries: int = 0  # seed of the order of entries
    zeros: bool = False  # zeros that are stored
    latest: bool = False  # HDF5 with checksums in its own structures


@dataclass(frozen=True, repr=False)
class H5ad(Shown):
    """What an AnnData file may choose beyond `Matrix`."""

    sparse: str = "csr"  # csr | csc | dense
    place: str = "X"  # X | layers/counts | raw/X; the others hold logarithms
    frames: str = "new"  # new | 0.7 | compound
    names: str = "symbols"  # what the var index holds: symbols | ids | numbers
    coordinates: str = "obsm"  # obsm | obsm_int32 | obsm_3d | obsm_frame | obsm_rowcol | obs_xy | obs_centroid
    label_kind: str = "category"  # category | string


@dataclass(frozen=True, repr=False)
class Encoding(Shown):
    """One way to write one sample."""

    platform: str
    matrix: Matrix = Matrix()
    table: Text = Text()
    labels: Text | None = None
    h5ad: H5ad = H5ad()
    layout: str = ""  # visium, xenium: "" | outs | prefix; st: selection | alignment | names
    raw: bool = False  # visium: the raw matrix, with what lies off the tissue
    image: str = ""  # visium: "" | hires | lowres | both
    transposed: bool = False  # tables of counts
    key: str = "barcode"  # name of the key column of labels; "" is a row name of R, "number" adds a running number
    cell_names: str = "text"  # xenium: text | number


# ------------------------------------------------------------------------------------------------ strategies


def truths(**fixed):
    """Return a strategy of truths."""
    sizes = st.integers(3, 5)
    drawn = {
        "rows": sizes, "cols": sizes, "genes": st.integers(3, 9), "off": st.integers(0, 2), "seed": st.integers(0, 99),
        "odd_names": st.booleans(),
    }  # fmt: skip
    return st.builds(Truth, **(drawn | {name: st.just(value) for name, value in fixed.items()}))


ORDERS = st.integers(0, 9)


def texts(kinds=("csv", "tsv", "semicolon", "parquet"), **fixed):
    """Return a strategy of table styles, each free of choices that its kind does not have."""
    drawn = {
        "kind": st.sampled_from(kinds), "gz": st.booleans(), "columns": ORDERS, "rows": ORDERS, "bom": st.booleans(),
        "crlf": st.booleans(), "last_newline": st.booleans(), "quoted": st.booleans(), "floats": st.booleans(),
        "words": st.sampled_from(["1", "True", "TRUE"]), "extra": st.booleans(),
        "codec": st.sampled_from(["snappy", "zstd", "none"]), "strings": st.sampled_from(["str", "category", "bytes"]),
        "as_index": st.booleans(),
    }  # fmt: skip
    return st.builds(Text, **(drawn | {name: st.just(value) for name, value in fixed.items()})).map(_plain)


def _plain(text):
    """Reset what a style does not use, so that equal files have equal styles."""
    if text.kind == "parquet":
        return replace(text, gz=False, header=True, bom=False, crlf=False, last_newline=True, quoted=False)
    text = replace(text, codec="snappy", strings="str", as_index=False)
    return text if text.header else replace(text, columns=0, extra=False)


def matrices(kinds=("h5", "h5v2", "trio3", "trio2")):
    """Return a strategy of matrix styles."""
    return st.builds(
        Matrix, kind=st.sampled_from(kinds), dtype=st.sampled_from(["int32", "int64", "uint16", "float32", "float64"]),
        indices=st.sampled_from(["int64", "int32", "uint32"]), codec=st.sampled_from(["", "gzip", "lzf"]),
        strings=st.sampled_from(["fixed", "variable"]), barcodes=ORDERS, genes=ORDERS, entries=ORDERS,
        zeros=st.booleans(), latest=st.booleans(),
    )  # fmt: skip


def _labels(keys):
    """Return a strategy of (style, name of the key column), or of no labels."""
    some = st.tuples(texts(("csv", "tsv"), words="1", floats=False), st.sampled_from(keys))
    return st.one_of(st.just((None, "barcode")), some)


@st.composite
def encodings(draw, platform):
    """Return one way to write a sample of `platform`, drawn among all those that are read."""
    labels, key = draw(_labels(("barcode", "Barcode", "", "number")))
    base = Encoding(platform, labels=labels, key=key)
    if platform == "visium":
        header = draw(st.booleans())
        table = draw(texts(("csv", "parquet") if header else ("csv",), header=header))
        layout, image = (
            draw(st.sampled_from(["", "outs", "prefix"])),
            draw(st.sampled_from(["", "hires", "lowres", "both"])),
        )
        return replace(base, matrix=draw(matrices()), table=table, layout=layout, raw=draw(st.booleans()), image=image)
    if platform == "visium_hd":
        image = draw(st.sampled_from(["", "hires"]))
        table = draw(texts(("parquet",)))
        return replace(base, matrix=draw(matrices(("h5", "trio3"))), table=table, image=image)
    if platform == "xenium":
        table = draw(texts(("csv", "parquet")))
        names, layout = draw(st.sampled_from(["text", "number"])), draw(st.sampled_from(["", "outs"]))
        matrix = draw(matrices(("h5", "trio3", "trio2")))
        return replace(base, matrix=matrix, table=table, cell_names=names, layout=layout)
    if platform == "st":
        counts, table = draw(texts(("csv", "tsv"), words="1")), draw(texts(("csv", "tsv"), words="1"))
        labels = None if labels is None else replace(table, rows=labels.rows, columns=labels.columns)
        return replace(
            base, labels=labels, key="barcode", table=table,
            matrix=Matrix("table", barcodes=counts.rows, genes=counts.columns),
            layout=draw(st.sampled_from(["selection", "alignment", "names"])), transposed=draw(st.booleans()),
        )  # fmt: skip
    matrix = draw(matrices(("h5ad",)))
    h5ad = draw(
        st.builds(
            H5ad, sparse=st.sampled_from(["csr", "csc", "dense"]),
            place=st.sampled_from(["X", "layers/counts", "raw/X"]), frames=st.sampled_from(["new", "0.7", "compound"]),
            names=st.sampled_from(["symbols", "ids", "numbers"]), coordinates=st.sampled_from(COORDINATES),
            label_kind=st.sampled_from(["category", "string"]),
        )
    )  # fmt: skip
    if platform == "h5ad":
        return replace(base, matrix=matrix, h5ad=h5ad)
    kind = draw(st.sampled_from(["h5", "h5v2", "trio3", "trio2", "h5ad", "loom", "table"]))
    if kind == "h5ad":
        return replace(base, matrix=matrix, h5ad=h5ad)
    table = draw(texts(("csv", "tsv"), words="1", extra=False))
    return replace(base, matrix=replace(draw(matrices()), kind=kind), table=table, transposed=draw(st.booleans()))


# --------------------------------------------------------------------------------------------------- writers


def write(root: Path, truth: Truth, encoding: Encoding) -> dict:
    """Write one sample and return the columns of its sheet line."""
    root.mkdir(parents=True, exist_ok=True)
    row = WRITERS[encoding.platform](root, truth, encoding)
    if encoding.labels is not None:
        row |= _write_labels(root, truth, encoding)
    return {"platform": encoding.platform, **row}


def order(seed, n):
    """Return a permutation; seed 0 keeps the order."""
    return np.random.default_rng(seed).permutation(n) if seed else np.arange(n)


def put_text(path: Path, content: str, style: Text = Text()) -> Path:
    """Write text in a style."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not style.last_newline:
        content = content.rstrip("\n")
    if style.crlf:
        content = content.replace("\n", "\r\n")
    data = content.encode("utf-8-sig" if style.bom else "utf-8")
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)
    return path


def put_table(path: Path, frame: pd.DataFrame, style: Text) -> Path:
    """Write a frame in a style; the suffix is added."""
    frame = frame.iloc[order(style.rows, len(frame))]
    if style.extra:
        frame = frame.assign(note=np.linspace(0.5, 1.5, len(frame)).round(3))
    frame = frame.iloc[:, order(style.columns, frame.shape[1])]
    for name in frame.columns[[kind.kind == "b" for kind in frame.dtypes]]:
        yes = {"1": 1, "True": True, "TRUE": "TRUE"}[style.words]
        no = {"1": 0, "True": False, "TRUE": "FALSE"}[style.words]
        frame = frame.assign(**{name: [yes if v else no for v in frame[name]]})
    if style.floats:
        whole = [name for name in frame if frame[name].dtype.kind == "i"]
        frame = frame.astype(dict.fromkeys(whole, float))
    if style.kind == "parquet":
        return _put_parquet(path.with_name(path.name + ".parquet"), frame, style)
    separator, suffix = {"csv": (",", ".csv"), "tsv": ("\t", ".tsv"), "semicolon": (";", ".csv")}[style.kind]
    content = frame.to_csv(index=False, sep=separator, header=style.header, quoting=2 if style.quoted else 0)
    return put_text(path.with_name(path.name + suffix + (".gz" if style.gz else "")), content, style)


def _put_parquet(path, frame, style):
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in [n for n in frame if frame[n].dtype.kind not in "iufb"]:
        if style.strings == "bytes":
            frame = frame.assign(**{name: [v.encode() for v in frame[name]]})
        elif style.strings == "category":
            frame = frame.assign(**{name: pd.Categorical(frame[name])})
    if style.as_index:
        frame = frame.set_index(next(n for n in frame if n in ("barcode", "cell_id")))
    frame.to_parquet(path, compression=None if style.codec == "none" else style.codec)
    return path


@dataclass
class Panel:
    """Barcodes and features of one matrix, in the order they are written."""

    values: np.ndarray
    barcodes: np.ndarray
    ids: np.ndarray
    names: np.ndarray
    types: np.ndarray


def panel(truth, style, barcodes, keep=None, controls=0):
    """Return the counts of a truth in the order of a style, with control features where asked."""
    rows = np.flatnonzero(np.ones(truth.n, bool) if keep is None else keep)
    rows = rows[order(style.barcodes, len(rows))]
    extra = np.ones((truth.n, controls), int)
    values = np.column_stack([truth.counts, extra])
    control_names = [f"NegControlProbe_{i:05d}" for i in range(controls)]
    ids, names = np.array([*truth.ids, *control_names]), np.array([*truth.names, *control_names])
    types = np.array(["Gene Expression"] * truth.genes + ["Negative Control Probe"] * controls)
    cols = order(style.genes, len(ids))
    return Panel(values[np.ix_(rows, cols)], barcodes[rows], ids[cols], names[cols], types[cols])


def entries(values, style):
    """Return rows, columns and values of what is stored."""
    keep = np.ones(values.shape, bool) if style.zeros else values > 0
    rows, cols = np.nonzero(keep)
    return rows, cols, values[rows, cols]


def compressed(values, style):
    """Return data, indices, indptr of a row-compressed matrix, entries of a row in the order of the style."""
    rows, cols, data = entries(values, style)
    if style.entries:
        mixed = order(style.entries, len(rows))
        mixed = mixed[np.argsort(rows[mixed], kind="stable")]
        cols, data = cols[mixed], data[mixed]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(values)))])
    return data.astype(style.dtype), cols.astype(style.indices), indptr.astype(style.indices)


def put_arrays(group, style, **arrays):
    """Write arrays into an HDF5 group in a style."""
    for name, values in arrays.items():
        values = np.asarray(values)
        if values.dtype.kind in "UO":
            if style.strings == "variable":
                group.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
                continue
            values = np.char.encode(values.astype(str), "utf-8")
        options = {"compression": style.codec, "chunks": True} if style.codec and values.ndim and values.size else {}
        group.create_dataset(name, data=values, **options)


def h5_file(path, style):
    """Open a new HDF5 file in a style."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return h5py.File(path, "w", **({"libver": "latest"} if style.latest else {}))


def put_h5(path, part, style):
    """Write a 10x matrix as HDF5, of Cell Ranger 2 or later."""
    data, indices, indptr = compressed(part.values, style)
    with h5_file(path, style) as handle:
        group = handle.create_group("GRCh38" if style.kind == "h5v2" else "matrix")
        shape = np.array(part.values.shape[::-1], dtype=np.int32)
        put_arrays(group, style, barcodes=part.barcodes, data=data, indices=indices, indptr=indptr, shape=shape)
        if style.kind == "h5v2":
            put_arrays(group, style, genes=part.ids, gene_names=part.names)
        else:
            genome = np.array(["GRCh38"] * len(part.ids))
            features = group.create_group("features")
            put_arrays(features, style, id=part.ids, name=part.names, feature_type=part.types, genome=genome)
            handle.attrs["library_ids"] = np.array(["lib1"], dtype="S")
    return path


def put_trio(folder, part, style, text=Text(), prefix=""):
    """Write a 10x matrix as Matrix Market and two lists, of Cell Ranger 2 or later."""
    gz = ".gz" if style.kind == "trio3" else ""
    rows, cols, data = entries(part.values, style)
    mixed = order(style.entries, len(rows))
    real = style.dtype.startswith("float")
    head = f"%%MatrixMarket matrix coordinate {'real' if real else 'integer'} general\n%metadata_json: {{}}\n"
    size = f"{part.values.shape[1]} {part.values.shape[0]} {len(rows)}\n"
    number = "{:.1f}" if real else "{}"
    body = "".join(f"{cols[i] + 1} {rows[i] + 1} {number.format(data[i])}\n" for i in mixed)
    list_style = replace(Text(), crlf=text.crlf)
    put_text(folder / f"{prefix}matrix.mtx{gz}", head + size + body)
    put_text(folder / f"{prefix}barcodes.tsv{gz}", "".join(f"{b}\n" for b in part.barcodes), list_style)
    lines = zip(part.ids, part.names, part.types)
    content = "".join("\t".join(line[: 3 if style.kind == "trio3" else 2]) + "\n" for line in lines)
    put_text(folder / f"{prefix}{'features' if style.kind == 'trio3' else 'genes'}.tsv{gz}", content, list_style)


def put_matrix(folder, stem, part, style, text=Text(), prefix=""):
    """Write a 10x matrix under the name that Space Ranger and Xenium give it."""
    if style.kind.startswith("h5"):
        put_h5(folder / f"{prefix}{stem}.h5", part, style)
    elif prefix:
        put_trio(folder, part, style, text, prefix)
    else:
        put_trio(folder / stem, part, style, text)


def put_png(path, width, height):
    """Write a small grey ramp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = np.linspace(60, 240, max(width, 1)).astype(np.uint8).repeat(3).tobytes()

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress((b"\0" + line) * height)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def positions(truth, platform, barcodes):
    """Return Space Ranger's six columns."""
    array, xy = truth.array(platform), truth.xy(platform)
    return pd.DataFrame(
        {
            "barcode": barcodes, "in_tissue": truth.on, "array_row": array[:, 1], "array_col": array[:, 0],
            "pxl_row_in_fullres": xy[:, 1], "pxl_col_in_fullres": xy[:, 0],
        }
    )  # fmt: skip


def image_scales(truth):
    """Return the scale of each image, which is of one size under every microscope."""
    return {"hires": 0.5 / truth.zoom, "lowres": 0.15 / truth.zoom}


def put_spatial(folder, truth, encoding, barcodes, prefix="", **factors):
    """Write positions, scale factors and images; the scale factors are exact for the images' whole pixels."""
    platform = encoding.platform
    stem = f"{prefix}tissue_positions" + ("" if encoding.table.header else "_list")
    put_table(folder / stem, positions(truth, platform, barcodes), encoding.table)
    pitch = PITCH_PX[platform] * truth.zoom
    values = {"spot_diameter_fullres": (0.55 if platform == "visium" else 1.0) * pitch, **factors}
    width, height = truth.size(platform)
    for kind, scale in image_scales(truth).items():
        values[f"tissue_{kind}_scalef"] = scale
        if encoding.image in (kind, "both"):
            put_png(folder / f"{prefix}tissue_{kind}_image.png", round(width * scale), round(height * scale))
    put_text(folder / f"{prefix}scalefactors_json.json", json.dumps(values))


def visium(root, truth, encoding):
    prefix = "GSM1_S1_" if encoding.layout == "prefix" else ""
    home = root / "outs" if encoding.layout == "outs" else root
    part = panel(truth, encoding.matrix, truth.barcodes, None if encoding.raw else truth.on)
    old = encoding.matrix.kind in ("h5v2", "trio2")
    stem = ("raw" if encoding.raw else "filtered") + ("_gene_bc_matrices" if old else "_feature_bc_matrix")
    if encoding.raw and prefix and encoding.matrix.kind.startswith("trio"):
        put_matrix(home / f"{prefix}{stem}", stem, part, encoding.matrix)
        (home / f"{prefix}{stem}" / stem).rename(home / "moved")
        (home / f"{prefix}{stem}").rmdir()
        (home / "moved").rename(home / f"{prefix}{stem}")
    else:
        put_matrix(home, stem, part, encoding.matrix, encoding.table, prefix)
    put_spatial(home if prefix else home / "spatial", truth, encoding, truth.barcodes, prefix)
    return {"path": str(root / prefix) if prefix else root}


def bin_names(truth):
    return np.array([f"s_008um_{r:05d}_{c:05d}-1" for c, r in truth.array("visium_hd")])


def visium_hd(root, truth, encoding):
    home = root / "binned_outputs" / "square_008um"
    names = bin_names(truth)
    put_matrix(home, "filtered_feature_bc_matrix", panel(truth, encoding.matrix, names, truth.on), encoding.matrix)
    mpp = 8 / (PITCH_PX["visium_hd"] * truth.zoom)
    put_spatial(home / "spatial", truth, encoding, names, bin_size_um=8.0, microns_per_pixel=mpp)
    return {"path": root}


def cell_names(truth, encoding):
    return np.array([str(i + 1) if encoding.cell_names == "number" else f"cell{i:04d}-1" for i in range(truth.n)])


def xenium(root, truth, encoding):
    home = root / "outs" if encoding.layout == "outs" else root
    names = cell_names(truth, encoding)
    put_matrix(home, "cell_feature_matrix", panel(truth, encoding.matrix, names, controls=2), encoding.matrix)
    xy = truth.xy("xenium")
    keys = names.astype(int) if encoding.cell_names == "number" else names
    cells = pd.DataFrame({"cell_id": keys, "x_centroid": xy[:, 0], "y_centroid": xy[:, 1]})
    cells["transcript_counts"] = truth.counts.sum(axis=1)
    cells["cell_area"] = 50.0 + np.arange(truth.n)
    style = encoding.table
    if encoding.cell_names == "number":
        style = replace(style, as_index=False, floats=False)
    put_table(home / "cells", cells, style)
    return {"path": root}


def legacy(root, truth, encoding):
    """Write a legacy ST section: counts named by array position, and a coordinates table."""
    array, xy, style = truth.array("st") + 2, truth.xy("st"), encoding.table
    names = np.array([f"{x}x{y}" for x, y in array])
    part = panel(truth, encoding.matrix, names)
    counts = pd.DataFrame(part.values, index=part.barcodes, columns=part.names)
    counts = (counts.T if encoding.transposed else counts).rename_axis("spot" if style.extra else "").reset_index()
    path = put_table(root / "A1", counts, replace(style, rows=0, columns=0, extra=False))
    frame = pd.DataFrame(
        {"x": array[:, 0], "y": array[:, 1], "pixel_x": xy[:, 0], "pixel_y": xy[:, 1], "selected": truth.on}
    )
    if encoding.layout == "names":
        frame = frame.drop(columns=["x", "y"])
        frame.insert(0, "spot", names)
    stem = {"selection": "A1_selection", "alignment": "alignment_table_A1", "names": "A1_coordinates"}[encoding.layout]
    put_table(root / stem, frame, style)
    return {"path": path}


def scrna(root, truth, encoding):
    style = encoding.matrix
    if style.kind == "h5ad":
        return h5ad(root, truth, encoding)
    part = panel(truth, style, truth.barcodes)
    if style.kind == "loom":
        with h5_file(root / "a.loom", style) as handle:
            put_arrays(handle, style, matrix=part.values.T.astype(style.dtype))
            put_arrays(handle.create_group("row_attrs"), style, Gene=part.names, Accession=part.ids)
            put_arrays(handle.create_group("col_attrs"), style, CellID=part.barcodes)
        return {"path": root / "a.loom"}
    if style.kind == "table":
        frame = pd.DataFrame(part.values.T, index=part.ids, columns=part.barcodes)
        frame = (frame.T if encoding.transposed else frame).rename_axis("").reset_index()
        return {"path": put_table(root / "a", frame, replace(encoding.table, rows=0, columns=0))}
    put_matrix(root, "filtered_feature_bc_matrix", part, style)
    return {"path": root / "filtered_feature_bc_matrix.h5" if style.kind.startswith("h5") else root}


COORDINATES = ("obsm", "obsm_int32", "obsm_3d", "obsm_frame", "obsm_rowcol", "obs_xy", "obs_centroid", "obs_rowcol")


def h5ad(root, truth, encoding):
    """Write an AnnData file by hand, as several versions and writers do."""
    style, choice = encoding.matrix, encoding.h5ad
    part = panel(truth, style, truth.barcodes)
    rows = order(style.barcodes, truth.n)
    xy = truth.xy("h5ad")[rows]
    obs = {"label": truth.labels[rows], "total": part.values.sum(axis=1)}
    if encoding.platform == "h5ad":
        names = {
            "obs_xy": ("x", "y"),
            "obs_centroid": ("x_centroid", "y_centroid"),
            "obs_rowcol": ("imagecol", "imagerow"),
        }
        if choice.coordinates in names:
            obs |= dict(zip(names[choice.coordinates], xy.T))
    var = {"feature_types": part.types}
    index = {"symbols": part.names, "ids": part.ids, "numbers": np.arange(len(part.ids)).astype(str)}[choice.names]
    if choice.names != "symbols":
        var["gene_symbols"] = part.names
    if choice.names != "ids":
        var["gene_ids"] = part.ids
    with h5_file(root / "a.h5ad", style) as handle:
        if choice.frames == "new":
            _stamp(handle, "anndata", "0.1.0")
        _put_frame(handle, "obs", part.barcodes, obs, encoding)
        _put_frame(handle, "var", index, var, encoding)
        logged = np.log1p(part.values / part.values.sum(axis=1, keepdims=True) * 1e4).astype("float32")
        for place in ("X", "layers/counts", "raw/X") if choice.place != "X" else ("X",):
            if place in ("X", choice.place):
                _put_counts(handle, place, part.values if place == choice.place else logged, encoding)
        if choice.place == "raw/X":
            _put_frame(handle["raw"], "var", index, var, encoding)
        if encoding.platform == "h5ad" and choice.coordinates.startswith("obsm"):
            _put_obsm(handle, part.barcodes, xy, encoding)
        handle.require_group("uns")
    row = {"path": root / "a.h5ad"}
    return row


def _stamp(node, kind, version):
    node.attrs["encoding-type"], node.attrs["encoding-version"] = kind, version


def _put_counts(handle, place, values, encoding):
    style, choice = encoding.matrix, encoding.h5ad
    if np.asarray(values).dtype.kind == "f":
        style = replace(style, dtype="float32")
    if choice.sparse == "dense":
        put_arrays(handle, style, **{place: values.astype(style.dtype)})
        if choice.frames == "new":
            _stamp(handle[place], "array", "0.2.0")
        return
    group = handle.create_group(place)
    turned = values.T if choice.sparse == "csc" else values
    data, indices, indptr = compressed(turned, style)
    put_arrays(group, style, data=data, indices=indices, indptr=indptr)
    if choice.frames == "compound":
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = choice.sparse, values.shape
    else:
        _stamp(group, f"{choice.sparse}_matrix", "0.1.0")
        group.attrs["shape"] = values.shape


def _put_frame(parent, name, index, columns, encoding):
    """Write a frame as anndata did before 0.7, in 0.7, and does since 0.8."""
    style, frames = encoding.matrix, encoding.h5ad.frames
    mixed = order(encoding.table.columns, len(columns))
    columns = {key: columns[key] for key in (list(columns)[i] for i in mixed)}
    if frames == "compound":
        kinds = [("index", f"S{max(len(v) for v in index)}")]
        kinds += [(k, v.dtype if v.dtype.kind != "U" else f"S{max(map(len, v))}") for k, v in columns.items()]
        records = np.zeros(len(index), dtype=kinds)
        records["index"] = np.char.encode(index, "utf-8")
        for key, values in columns.items():
            records[key] = np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
        parent[name] = records
        return
    group = parent.create_group(name)
    _stamp(group, "dataframe", "0.2.0" if frames == "new" else "0.1.0")
    group.attrs["_index"] = "_index" if frames == "new" else "index"
    group.attrs["column-order"] = np.array(list(columns), dtype=object)
    text = replace(style, strings="variable")
    put_arrays(group, text, **{group.attrs["_index"]: index})
    if frames == "new":
        _stamp(group["_index"], "string-array", "0.2.0")
    for key, values in columns.items():
        if values.dtype.kind == "U" and encoding.h5ad.label_kind == "category":
            _put_category(group, key, values, text, frames)
        else:
            put_arrays(group, text, **{key: values})
            if frames == "new":
                _stamp(group[key], "string-array" if values.dtype.kind == "U" else "array", "0.2.0")


def _put_category(group, key, values, style, frames):
    categories, codes = np.unique(values, return_inverse=True)
    if frames == "new":
        inner = group.create_group(key)
        _stamp(inner, "categorical", "0.2.0")
        inner.attrs["ordered"] = False
        put_arrays(inner, style, codes=codes.astype("int8"), categories=categories)
        _stamp(inner["codes"], "array", "0.2.0")
        _stamp(inner["categories"], "string-array", "0.2.0")
    else:
        put_arrays(group.require_group("__categories"), style, **{key: categories})
        put_arrays(group, style, **{key: codes.astype("int8")})
        group[key].attrs["categories"] = group["__categories"][key].ref


def _put_obsm(handle, barcodes, xy, encoding):
    kind = encoding.h5ad.coordinates
    group = handle.require_group("obsm")
    if kind in ("obsm_frame", "obsm_rowcol"):
        columns = {"x": xy[:, 0], "y": xy[:, 1]}
        if kind == "obsm_rowcol":
            columns = {"imagerow": xy[:, 1], "imagecol": xy[:, 0]}
        frames = (
            encoding
            if encoding.h5ad.frames != "compound"
            else replace(encoding, h5ad=replace(encoding.h5ad, frames="new"))
        )
        _put_frame(group, "spatial", barcodes, columns, frames)
        return
    if kind == "obsm_3d":
        xy = np.column_stack([xy, np.zeros(len(xy))])
    put_arrays(group, encoding.matrix, spatial=np.rint(xy).astype("int32") if kind == "obsm_int32" else xy)
    if encoding.h5ad.frames == "new":
        _stamp(group["spatial"], "array", "0.2.0")


def _write_labels(root, truth, encoding):
    """Write labels beside the data, or name the column of an AnnData file that holds them."""
    if encoding.matrix.kind == "h5ad":
        return {"labels": "label"}
    names = keys(truth, encoding)
    frame = pd.DataFrame({"barcode": names, "layer": truth.labels})
    style = encoding.labels
    if encoding.key == "number":
        frame.insert(0, "", np.arange(truth.n))
        style = replace(style, extra=False, columns=0)
    else:
        frame = frame.rename(columns={"barcode": encoding.key})
    column = {"labels_column": "layer"} if style.extra else {}
    return {"labels": put_table(root / "labels", frame, style), **column}


WRITERS = {"visium": visium, "visium_hd": visium_hd, "xenium": xenium, "h5ad": h5ad, "st": legacy, "scrna": scrna}


# ----------------------------------------------------------------------------------------- what must come out


def keys(truth, encoding):
    """Return the names of all places."""
    platform = encoding.platform
    if platform == "visium_hd":
        return bin_names(truth)
    if platform == "xenium":
        return cell_names(truth, encoding)
    if platform == "st":
        return np.array([f"{x}x{y}" for x, y in truth.array("st") + 2])
    return truth.barcodes


def expected(truth: Truth, encoding: Encoding) -> dict:
    """Return what reading the sample must give: counts by barcode and gene, places, labels."""
    platform = encoding.platform
    kept = truth.on if platform in ("visium", "visium_hd", "st") else np.ones(truth.n, bool)
    barcodes = keys(truth, encoding)[kept]
    by_id = platform == "scrna" and encoding.matrix.kind == "table"
    genes = truth.ids if by_id else truth.names
    counts = pd.DataFrame(truth.counts[kept], index=barcodes, columns=genes)
    found = {"counts": counts.sort_index().sort_index(axis=1)}
    if platform != "scrna":
        xy = truth.xy(platform)[kept]
        if platform == "h5ad" and encoding.h5ad.coordinates == "obsm_int32":
            xy = np.rint(xy)
        found["xy"] = pd.DataFrame(xy, index=barcodes, columns=["x", "y"]).sort_index()
    if platform in ("visium", "visium_hd", "st"):
        found["mpp"] = {"visium": 100.0, "visium_hd": 8.0, "st": 200.0}[platform] / (PITCH_PX[platform] * truth.zoom)
    if encoding.image:
        found["scale"] = image_scales(truth)["lowres" if encoding.image == "lowres" else "hires"]
    if encoding.labels is not None:
        found["labels"] = pd.Series(truth.labels[kept], index=barcodes).sort_index()
    return found
