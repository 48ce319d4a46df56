"""What may befall the files of a sample, for the property that damage gives faults in words or the same result.

Each damage is told by its kind, by which file it befalls (counted among those it can) and by where in it. What no
reader could know is left out by construction, and said beside each kind.
"""

import gzip
import json
from dataclasses import dataclass, replace

import generators as g
import h5py
import numpy as np

TEXT = (".csv", ".tsv", ".txt", ".mtx", ".json")
SPACE_RANGER = ("visium", "visium_hd")
TOLD = {
    "visium": ["barcode", "in_tissue", "array_row", "array_col", *g.IN_FULLRES],
    "visium_hd": ["barcode", "in_tissue", "array_row", "array_col", *g.IN_FULLRES],
    "xenium": ["cell_id", "x_centroid", "y_centroid"],
    "st": ["x", "y", "pixel_x", "pixel_y"],
}
HEAP = 4096  # bytes of one of HDF5's heaps of strings
KINDS = {}


@dataclass(frozen=True, repr=False)
class Damage(g.Shown):
    """One damage.

    Parameters
    ----------
    kind
        A key of `KINDS`.
    file, at, value
        Which of the files it can befall, where in it (in thousandths), and which of the kind's ways; all wrap around.
    """

    kind: str
    file: int = 0
    at: int = 0
    value: int = 0

    def pick(self, items, number=None):
        """Return one of some items, by `file` unless told by what else; None where there is none."""
        items = list(items)
        return items[(self.file if number is None else number) % len(items)] if items else None

    def place(self, size):
        """Return a place below `size`."""
        return min(self.at * size // 1000, size - 1)


@dataclass(frozen=True)
class Kind:
    """How a damage is done: to which platforms, after which changes of the encoding and of the truth."""

    do: object
    platforms: tuple
    needs: object
    fixed: dict


def kind(*platforms, needs=lambda encoding: encoding, **fixed):
    """Register a damage."""

    def register(do):
        KINDS[do.__name__] = Kind(do, platforms or g.PLATFORMS, needs, fixed)
        return do

    return register


def files(root, *endings):
    """Return the files under a folder whose name ends so, in the order of their names."""
    return sorted(p for p in root.rglob("*") if p.is_file() and (not endings or p.name.endswith(endings)))


def data_files(root):
    return [p for p in files(root) if not p.name.startswith("labels")]


def load(path):
    """Return the text of a file, gzipped or not."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("utf-8-sig")


def store(path, text):
    """Write a text in the file's own compression."""
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)


def change_table(root, encoding, change):
    """Rewrite the table of places through a change of its frame; return whether there was one with a header."""
    names = {"st": ("A1_", "alignment"), "xenium": ("cells",)}.get(
        encoding.platform, ("tissue_positions", "GSM1_S1_tissue_pos")
    )
    path = next((p for p in files(root) if p.name.startswith(names)), None)
    if path is None:
        return False
    if path.name.endswith("parquet"):
        pd_frame = change(_parquet(path))
        pd_frame.to_parquet(path)
        return True
    style = encoding.table
    separator = {"csv": ",", "tsv": "\t", "semicolon": ";"}[style.kind]
    frame = _read(path, separator, style.header, TOLD[encoding.platform])
    content = change(frame).to_csv(index=False, sep=separator, header=style.header)
    store(path, content)
    return True


def _read(path, separator, header, names):
    import io

    import pandas as pd

    given = {} if header else {"names": names}
    return pd.read_csv(io.StringIO(load(path)), sep=separator, dtype=object, keep_default_na=False, **given)


def _parquet(path):
    import pandas as pd

    frame = pd.read_parquet(path)
    return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()


def change_h5(root, change):
    """Change the one HDF5 file; return whether there was one."""
    path = next(iter(files(root, ".h5", ".h5ad", ".loom")), None)
    if path is None:
        return False
    with h5py.File(path, "r+") as handle:
        change(handle)
    return True


def rewrite(handle, name, values):
    """Replace a data set, keeping what is said of it."""
    said = dict(handle[name].attrs)
    del handle[name]
    handle[name] = values
    handle[name].attrs.update(said)


# ------------------------------------------------------------------------------------------------- whole files


def sealed(encoding):
    """Return the encoding with every file compressed under a checksum."""
    matrix = replace(encoding.matrix, codec="gzip", latest=True, strings="fixed")
    kinds = {"h5v2": "h5", "trio2": "trio3"}
    return replace(
        encoding, matrix=replace(matrix, kind=kinds.get(matrix.kind, matrix.kind)), labels=None,
        table=encoding.table if encoding.table.kind == "parquet" else replace(encoding.table, gz=True),
    )  # fmt: skip


@kind(needs=sealed)
def flipped_under_a_checksum(root, damage, truth, encoding):
    """A byte changed in a file that has checksums: gzip, PNG, HDF5 that is compressed and of the latest format.

    Left out: plain text, parquet, HDF5 of the usual format and strings of variable length have none, so a digit that
    became another digit cannot be seen; they are in `flipped_anywhere`, which asks less.
    """
    endings = (".gz", ".png", ".h5") if encoding.matrix.kind != "h5ad" else (".gz", ".png")
    flip(damage.pick(files(root, *endings)), damage)


@kind()
def flipped_anywhere(root, damage, truth, encoding):
    """A byte changed in any file; where it cannot be seen another result is all there can be.

    Left out: HDF5's heaps of strings, as the HDF5 library itself never returns from some that are damaged.
    """
    flip(damage.pick(files(root)), damage)


def flip(path, damage):
    if path is None:
        return
    data = bytearray(path.read_bytes())
    place = damage.place(len(data))
    heap = data.rfind(b"GCOL", 0, place + 1)
    if 0 <= heap and place < heap + HEAP:
        place = heap - 1
    data[place] ^= 1 << damage.value % 8
    path.write_bytes(bytes(data))


def no_open_end(encoding):
    """Return the encoding with counts that tell their number: a table of counts that lost lines looks sound."""
    if encoding.matrix.kind == "table":
        return sealed(encoding)
    return encoding


@kind(needs=no_open_end)
def cut_short(root, damage, truth, encoding):
    """A file that ends too early, at any byte.

    Left out: plain text is cut at the end of a line or before a line's last field begins, as half a number is a number;
    a legacy coordinates table may always hold fewer spots, and a table of labels fewer labels.
    """
    path = damage.pick(data_files(root))
    data = path.read_bytes()
    place = damage.place(len(data))
    if path.name.endswith(TEXT) and not path.name.endswith(".json"):
        start = data.rfind(b"\n", 0, place) + 1
        stop = data.find(b"\n", place) % (len(data) + 1)
        last = max(data.rfind(mark, start, stop) for mark in (b",", b"\t", b";", b" "))
        place = start if place > last or (encoding.platform == "st" and place - start < 2) else place
        if encoding.platform == "st" and place == start:
            return
    path.write_bytes(data[:place])


@kind()
def emptied(root, damage, truth, encoding):
    """A file of no bytes."""
    damage.pick(data_files(root)).write_bytes(b"")


@kind()
def error_page(root, damage, truth, encoding):
    """A page of a web server under the file's name."""
    damage.pick(data_files(root)).write_bytes(b"<!DOCTYPE html>\n<html><body>404, not found</body></html>\n")


@kind()
def compression_by_another_name(root, damage, truth, encoding):
    """A gzipped file without .gz in its name, or a plain one with it."""
    path = damage.pick(files(root, *TEXT, ".gz"))
    if path is not None:
        data = path.read_bytes()
        path.write_bytes(gzip.decompress(data) if path.name.endswith(".gz") else gzip.compress(data))


@kind()
def zipped(root, damage, truth, encoding):
    """A file gzipped once more under its own name."""
    path = damage.pick(data_files(root))
    path.write_bytes(gzip.compress(path.read_bytes()))


@kind()
def missing(root, damage, truth, encoding):
    """A file that is not there.

    Left out: scale factors and images, without which a section can be read, with another scale; a legacy section
    without image may do without its coordinates table.
    """
    kept = (
        "scalefactors",
        "GSM1_S1_scalefactors",
        "tissue_",
        "GSM1_S1_tissue_hires",
        "GSM1_S1_tissue_lowres",
        "labels",
    )
    names = [p for p in files(root) if not p.name.startswith(kept) or "positions" in p.name]
    if encoding.platform == "st":
        names = [p for p in names if p.name.startswith("A1.")]
    damage.pick(names).unlink()


@kind()
def other_characters(root, damage, truth, encoding):
    """A text saved as UTF-16, with its mark or without."""
    path = damage.pick(files(root, *TEXT, *(f"{ending}.gz" for ending in TEXT)))
    if path is not None:
        store(path, load(path).encode(("utf-16", "utf-16-le", "utf-16-be")[damage.value % 3]))


# ------------------------------------------------------------------------------------------ rows and columns


@kind("visium", "visium_hd", "xenium")
def row_lost(root, damage, truth, encoding):
    """A row of positions or cells is gone; a legacy table may hold fewer spots, and is left out."""
    change_table(root, encoding, lambda frame: frame.drop(frame.index[damage.place(len(frame))]))


@kind("visium", "visium_hd", "xenium", "st")
def row_twice(root, damage, truth, encoding):
    """A row of the table of places is there twice, the second time as it was or elsewhere."""

    def change(frame):
        import pandas as pd

        again = frame.iloc[[damage.place(len(frame))]].copy()
        if damage.value % 2:
            last = next(name for name in ("pxl_col_in_fullres", "x_centroid", "pixel_x") if name in again)
            again[last] = again[last].astype(float) + 7
        return pd.concat([frame, again], ignore_index=True)

    change_table(root, encoding, change)


@kind("visium", "visium_hd", "xenium", "scrna")
def list_line_lost(root, damage, truth, encoding):
    """A line of the barcodes, the features or the entries of a matrix is gone."""
    path = damage.pick(_lists(root))
    if path is not None:
        lines = load(path).split("\n")
        del lines[3 + damage.place(len(lines) - 4) if "mtx" in path.name else damage.place(len(lines) - 1)]
        store(path, "\n".join(lines))


@kind("visium", "visium_hd", "xenium", "scrna")
def barcode_twice(root, damage, truth, encoding):
    """A barcode is there in the place of another; genes of one name may be several, and are told."""
    path = damage.pick(p for p in _lists(root) if "barcodes" in p.name)
    if path is not None:
        lines = load(path).split("\n")
        place = damage.place(len(lines) - 2)
        lines[place] = lines[place + 1]
        store(path, "\n".join(lines))


@kind("visium", "visium_hd", "xenium", "scrna")
def header_among_names(root, damage, truth, encoding):
    """A header above the barcodes or features."""
    path = damage.pick(_lists(root, entries=False))
    if path is not None:
        word = "barcode" if "barcodes" in path.name else "gene_id\tgene_name\tfeature_type"
        text = load(path)
        columns = text.split("\n")[0].count("\t") + 1
        store(path, "\t".join(word.split("\t")[:columns]) + "\n" + text)


@kind("visium", "visium_hd", "xenium", "scrna")
def transposed(root, damage, truth, encoding):
    """Barcodes x genes where genes x barcodes belong; a square matrix is left out."""
    path = next((p for p in _lists(root) if "mtx" in p.name), None)
    if path is not None and truth.n != truth.genes and truth.on.sum() != truth.genes:
        lines = load(path).split("\n")
        turned = [" ".join([line.split()[1], line.split()[0], *line.split()[2:]]) for line in lines[2:] if line.strip()]
        store(path, "\n".join(lines[:2] + turned) + "\n")


@kind("visium", "visium_hd", "xenium", "scrna")
def id_and_name_exchanged(root, damage, truth, encoding):
    """Symbols in the first column of the features, identifiers in the second."""
    path = next((p for p in _lists(root, entries=False) if "barcodes" not in p.name), None)
    if path is not None:
        rows = [line.split("\t") for line in load(path).split("\n") if line]
        store(path, "".join("\t".join([row[1], row[0], *row[2:]]) + "\n" for row in rows))


def _lists(root, entries=True):
    names = ("barcodes.tsv", "features.tsv", "genes.tsv", *(("matrix.mtx",) if entries else ()))
    return [p for p in files(root) if p.name.removesuffix(".gz").endswith(names)]


def with_header(encoding):
    """Return the encoding with a header, without which no column has a name."""
    return (
        encoding if encoding.table.kind == "parquet" else replace(encoding, table=replace(encoding.table, header=True))
    )


@kind("visium", "visium_hd", "xenium", "st")
def column_lost(root, damage, truth, encoding):
    """A column of the table of places that is needed is gone."""
    _with_column(root, damage, encoding, lambda frame, name: frame.drop(columns=name))


@kind("visium", "visium_hd", "xenium", "st", needs=with_header)
def column_renamed(root, damage, truth, encoding):
    """A column that is needed has a name that nobody knows."""
    _with_column(root, damage, encoding, lambda frame, name: frame.rename(columns={name: "what"}))


@kind("visium", "visium_hd", "xenium", "st", needs=with_header)
def column_named_twice(root, damage, truth, encoding):
    """Two columns of one name, in text alone."""
    if encoding.table.kind != "parquet":
        _with_column(root, damage, encoding, lambda frame, name: _as_other(frame, name, encoding.platform))


def _as_other(frame, name, platform):
    others = [other for other in TOLD[platform] if other != name and other in frame]
    return frame.rename(columns={name: others[0]})


def _with_column(root, damage, encoding, change):
    def apply(frame):
        there = [name for name in TOLD[encoding.platform] if name in frame]
        return change(frame, damage.pick(there))

    change_table(root, encoding, apply)


def wide(encoding):
    """Return the encoding with a header and an image, which alone tells x from y."""
    return replace(with_header(encoding), image="hires", raw=False)


@kind("visium", needs=wide, rows=3, cols=7, off=0)
def x_and_y_exchanged(root, damage, truth, encoding):
    """The columns of x and y carry each other's names, on an image that is wider than high.

    Left out: without an image, or on a square one, a section and its mirror image are equally likely.
    """
    row, col = g.IN_FULLRES
    change_table(root, encoding, lambda frame: frame.rename(columns={row: col, col: row}))


@kind("visium", "visium_hd", "xenium", "h5ad", "scrna")
def part_lost(root, damage, truth, encoding):
    """A group, a data set or what is said of one is gone from an HDF5 file.

    Left out: the symbols of genes, without which a file is sound and its genes are called by their identifiers; in an
    AnnData file other columns likewise.
    """

    def change(handle):
        parts = []
        handle.visititems(lambda name, node: parts.append(name))
        parts = [
            p
            for p in parts
            if not p.endswith(("gene_symbols", "/gene_ids", "Accession", "/Gene", "genome", "gene_names"))
        ]
        parts = [p for p in parts if not p.startswith(("obs/label", "obs/__c", "var/__c", "raw/var/__c"))]
        name = damage.pick(parts)
        said = sorted(handle[name].attrs)
        if damage.value % 2 and said:
            del handle[name].attrs[damage.pick(said, damage.at)]
        else:
            del handle[name]

    change_h5(root, change)


# ------------------------------------------------------------------------------------------------------ values

WRONG = (float("nan"), -3.0, 2.5, float("inf"), 1e12)


@kind()
def one_count_wrong(root, damage, truth, encoding):
    """One count is not a number, below 0, a fraction or without end."""
    _change_counts(root, damage, encoding, lambda values: _put(values, damage, WRONG[damage.value % len(WRONG)]))


@kind()
def counts_logged(root, damage, truth, encoding):
    """All counts are logarithms."""
    _change_counts(root, damage, encoding, np.log1p)


@kind()
def counts_scaled(root, damage, truth, encoding):
    """All counts are divided by something."""
    _change_counts(root, damage, encoding, lambda values: values / 7.3)


@kind()
def counts_below_zero(root, damage, truth, encoding):
    """All counts are centred."""
    _change_counts(root, damage, encoding, lambda values: values - 2.0)


def _put(values, damage, value):
    values = values.astype(float)
    values.flat[damage.place(values.size)] = value
    return values


def _change_counts(root, damage, encoding, change):
    """Change the stored counts, wherever they are."""

    def in_h5(handle):
        for name in ("matrix/data", "GRCh38/data", "matrix", encoding.h5ad.place, f"{encoding.h5ad.place}/data"):
            if name in handle and isinstance(handle[name], h5py.Dataset):
                rewrite(handle, name, change(handle[name][()]))

    if change_h5(root, in_h5):
        return
    for path in files(root):
        if "matrix.mtx" in path.name:
            lines = [line for line in load(path).split("\n") if line]
            parts = [line.split() for line in lines[3:]]
            values = change(np.array([float(part[2]) for part in parts]))
            head = ["%%MatrixMarket matrix coordinate real general", *lines[1:3]]
            store(path, "\n".join([*head, *(f"{p[0]} {p[1]} {v!r}" for p, v in zip(parts, values.tolist()))]) + "\n")
        elif path.name.startswith(("A1.", "a.")):
            separator = {"csv": ",", "tsv": "\t"}[encoding.table.kind]
            frame = _read(path, separator, True, None)
            frame.iloc[:, 1:] = change(frame.iloc[:, 1:].to_numpy(float))
            store(path, frame.to_csv(index=False, sep=separator))


BAD_PLACE = (float("nan"), "", "here", float("inf"), -1e6, 1e9)


@kind("visium", "visium_hd", "st")
def one_place_wrong(root, damage, truth, encoding):
    """One position is not a number, or lies far off the array.

    Left out: a place that is a little off; Xenium and h5ad, whose cells may lie anywhere.
    """

    def change(frame):
        names = [n for n in (*g.IN_FULLRES, "pixel_x", "pixel_y") if n in frame]
        name, value = damage.pick(names), BAD_PLACE[damage.value % len(BAD_PLACE)]
        if encoding.table.kind == "parquet" and isinstance(value, str):
            value = float("nan")
        values = list(frame[name])
        values[damage.place(len(values))] = value
        return frame.assign(**{name: values})

    change_table(root, encoding, change)


@kind("xenium")
def one_cell_nowhere(root, damage, truth, encoding):
    """One cell's position is no number (in an h5ad such cells are left out with a warning: programs write them so)."""
    change_table(
        root,
        encoding,
        lambda frame: frame.assign(x_centroid=_put(frame["x_centroid"].to_numpy(float), damage, np.nan)),
    )


# ------------------------------------------------------------------------------------- files of another sample


def other_sample(root, truth, encoding, **changes):
    """Write another sample of the same encoding and return its folder."""
    other = root.parent / "other"
    g.write(other, replace(truth, seed=truth.seed + 1, **changes), encoding)
    return other


def take(root, other, names):
    """Copy files of the other sample over those of this one, where both have them."""
    for path in files(root):
        twin = other / path.relative_to(root)
        if twin.is_file() and any(name in path.name for name in names):
            path.write_bytes(twin.read_bytes())


def filtered(encoding):
    """Return the encoding with a filtered matrix, whose barcodes lie under the tissue alone."""
    return replace(encoding, raw=False)


@kind("visium", "visium_hd", needs=filtered, off=2)
def matrix_of_another(root, damage, truth, encoding):
    """The matrix of another section of the same array, with other places under the tissue."""
    other = other_sample(root, truth, encoding, shift=1 + damage.value % 3)
    take(root, other, ("matrix", "barcodes", "features", "genes"))


@kind("visium", "visium_hd", needs=filtered, off=2)
def positions_of_another(root, damage, truth, encoding):
    """The positions of another section of the same array, with other places under the tissue."""
    take(root, other_sample(root, truth, encoding, shift=1 + damage.value % 3), ("positions",))


@kind("visium", "visium_hd", "xenium", "scrna")
def one_list_of_another(root, damage, truth, encoding):
    """One of the three files of a matrix is that of another sample.

    Left out: samples of as many barcodes and genes, whose lists fit.
    """
    other = other_sample(root, truth, encoding, rows=truth.rows + 1, genes=truth.genes + 1)
    take(root, other, [("barcodes",), ("features", "genes.tsv"), ("matrix.mtx",)][damage.value % 3])


@kind("xenium")
def cells_of_another(root, damage, truth, encoding):
    """The cells of another sample, whose names are the same."""
    take(root, other_sample(root, truth, encoding), ("cells.",))


@kind("visium", "visium_hd", needs=filtered)
def scale_factors_of_another(root, damage, truth, encoding):
    """The scale factors of a section under another microscope.

    Left out: one under the same, at the same size of image: the numbers that matter are then the same.
    """
    take(root, other_sample(root, truth, encoding, zoom=(0.5, 2.0)[damage.value % 2]), ("scalefactors",))


@kind("visium", needs=lambda encoding: replace(encoding, image="both"))
def image_of_another(root, damage, truth, encoding):
    """One of the two images is that of a larger section.

    Left out: an image of the same size, or both images of another; pixels are not compared.
    """
    other = other_sample(root, truth, encoding, rows=truth.rows + 2 + damage.value % 3)
    take(root, other, (("hires_image", "lowres_image")[damage.file % 2],))


@kind("visium", "visium_hd", needs=lambda encoding: replace(encoding, image="hires"))
def scale_factor_wrong(root, damage, truth, encoding):
    """A scale factor is not a number above 0, or is not there."""
    path = next(p for p in files(root) if "scalefactors" in p.name)
    values = json.loads(load(path))
    wrong = (0, -0.5, "x", None, float("nan"), [1])[damage.value % 6]
    values["tissue_hires_scalef"] = wrong
    store(path, json.dumps(values))
