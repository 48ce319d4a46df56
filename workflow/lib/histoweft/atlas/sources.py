"""The expression of an atlas, from whatever form it comes in to an array of voxels x genes with positions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoweft.atlas import tables, volumes
from histoweft.atlas.voxels import row_chunks
from histoweft.errors import Faults, InputError, nearest

log = logging.getLogger(__name__)

MIDDLE = "middle"
ENERGY = "energy.mhd"
#: Where a study's own full-size atlas lies below its results.
SIMULATED = "simulated/full_atlas"


@dataclass(frozen=True)
class Options:
    """What the config says about the input; the names are those of its section `atlas`."""

    input: str
    genes: str = ""
    positions: str = ""
    positions_rows: int | None = None
    coordinates: tuple[str, ...] = ("z", "y", "x")
    annotation: str = ""
    structures: str = ""
    axes: str = "zyx"
    voxel_um: float = 200.0
    missing: tuple[float, ...] = (-1.0,)
    midline: float | str | None = MIDDLE
    background: str = "annotation"
    planes: tuple[str, ...] = ("coronal", "sagittal")
    min_valid: float = 0.8
    min_valid_sagittal: float = 0.3
    mirror: bool = False


@dataclass(frozen=True)
class Raw:
    """Expression as it was read.

    Parameters
    ----------
    values
        Numbers, stored voxels x genes; may be memory-mapped, and a view of volumes.
    genes
        One name a gene.
    rows
        Which stored voxel each candidate voxel is.
    position
        float32, candidates x 3: z, y, x in voxels.
    shape
        Grid that the positions index, None without one.
    about
        plane and experiment of each gene, where volumes have them.
    """

    values: np.ndarray
    genes: np.ndarray
    rows: np.ndarray
    position: np.ndarray
    shape: tuple[int, int, int] | None = None
    about: pd.DataFrame | None = None


@dataclass(frozen=True)
class Files:
    """What an atlas is read from.

    Parameters
    ----------
    input
        The expression: one file, or a table and the volumes it lists, or the volumes of a folder.
    genes, positions, annotation, structures
        None or one of each.
    experiments
        Table of experiments that are downloaded first; `input` is then empty.
    """

    input: tuple[str, ...] = ()
    genes: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    annotation: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    experiments: str = ""


def discover(config: Mapping[str, object], own: str, check: bool = True) -> tuple[Files, Faults]:
    """Find the files of an atlas before any job runs.

    Parameters
    ----------
    config
        The section `atlas` of the config, its paths as they are.
    own
        Folder of what the study makes itself; files below it need not exist yet.
    check
        Whether a missing file is a fault; a job that runs beside others need not look again.

    Returns
    -------
    files
        What rules take as input.
    faults
        Every file that is missing, and options that contradict one another.
    """
    faults = Faults()
    if not config["input"]:
        return Files(), faults
    roles = {}
    for role in ("input", "genes", "positions", "annotation", "structures"):
        path = str(config[role])
        roles[role] = (path,) if path else ()
        if path and not Path(path).is_relative_to(own) and not Path(path).exists():
            parent = Path(path).parent
            near = nearest(Path(path).name, [p.name for p in parent.iterdir()]) if parent.is_dir() else ""
            faults.add(f"config: atlas.{role}", f"{path}, which does not exist", "the path of a file", near)
    _check_meaning(config, own, faults)
    source, experiments = Path(str(config["input"])), ""
    try:
        if source.is_dir():
            roles["input"] = tuple(folder_table(source)["path"])
        elif tables.is_text(source) and source.is_file() and tables.is_gene_table(source):
            table = tables.gene_table(source, f"atlas.input: {source}")
            if (table["path"] == "").any():
                roles["input"], experiments = (), str(source)
            else:
                roles["input"] = (str(source), *table["path"])
    except InputError as error:
        faults.extend(error.faults)
    return Files(**roles, experiments=experiments), faults if check else Faults()


def _check_meaning(config: Mapping[str, object], own: str, faults: Faults) -> None:
    """Note options that contradict one another."""
    midline = config["midline"]
    if isinstance(midline, str) and midline != MIDDLE:
        faults.add("config: atlas.midline", midline, "middle, a number of voxels, or null")
    if config["mirror"] and midline is None:
        faults.add("config: atlas.mirror", "true", "false, where atlas.midline is null")
    if config["mirror"] and "hemisphere" in config.get("protocols", ()):
        hint = "Voxels filled in from the other half would be held out on one side and trained on on the other."
        faults.add("config: atlas.mirror", "true, with hemisphere among atlas.protocols", "one of the two", hint)
    if Path(str(config["input"])).is_relative_to(Path(own, SIMULATED)):
        for role in ("annotation", "structures"):
            if not config[role]:
                faults.add(f"config: atlas.{role}", "nothing", "the file that the simulated atlas is drawn on")


def read_annotation(options: Options) -> np.ndarray | None:
    """Return the annotation as int32 in the order z, y, x, None where none is given.

    Raises
    ------
    InputError
        It cannot be read, or holds anything but whole numbers of 0 and more.
    """
    if not options.annotation:
        return None
    where = f"atlas.annotation: {options.annotation}"
    volume = volumes.read_volume(options.annotation, where)
    whole = volume.dtype.kind in "iub" or (np.isfinite(volume).all() and (volume == np.floor(volume)).all())
    if not whole or volume.min() < 0 or volume.max() > np.iinfo(np.int32).max:
        found = f"values from {volume.min()} to {volume.max()} ({volume.dtype})"
        raise InputError.one(where, found, "ids: whole numbers of 0 to 2147483647")
    return volumes.to_zyx(volume.astype(np.int32), options.axes)


def candidates(options: Options, shape: Sequence[int], annotation: np.ndarray | None) -> np.ndarray:
    """Return z, y, x of the voxels of a grid that may be used (int, voxels x 3): of the organ, or of the whole grid."""
    if annotation is not None and options.background == "annotation":
        return np.argwhere(annotation > 0)
    return np.stack([axis.ravel() for axis in np.indices(tuple(shape))], 1)


def check_shape(shape: Sequence[int], annotation: np.ndarray | None, where: str) -> None:
    """Raise `InputError` when a grid (z, y, x) is not that of the annotation."""
    if annotation is not None and tuple(shape) != annotation.shape:
        found, expected = (" x ".join(map(str, size)) for size in (shape, annotation.shape))
        hint = "The axes of all volumes are read in one order (atlas.axes); is one of them of another resolution?"
        raise InputError.one(where, f"a grid of {found} (z, y, x)", f"{expected}, as the annotation", hint)


def read_input(options: Options, annotation: np.ndarray | None, scratch: Path) -> Raw:
    """Read the expression.

    Parameters
    ----------
    options
        The config.
    annotation
        As `read_annotation` gave it.
    scratch
        Folder for what is put together from many volumes (as many bytes as the candidates x genes in single precision).

    Raises
    ------
    InputError
        A file is missing, damaged, or does not fit the others.
    """
    path = Path(options.input)
    name = path.name.lower()
    if path.is_dir():
        return read_volumes(folder_table(path), options, annotation, scratch)
    if not path.is_file():
        raise InputError.one("atlas.input", f"{path}, which does not exist", "a file or a folder", "Check the path.")
    if name.endswith((".npz", ".npy")):
        return read_array(options, annotation)
    if name.endswith(".h5ad"):
        return read_h5ad(options)
    if tables.is_text(path) and tables.is_gene_table(path):
        return read_volumes(tables.gene_table(path, f"atlas.input: {path}"), options, annotation, scratch)
    if tables.is_text(path):
        return read_matrix(options)
    accepted = ".npz, .npy, .h5ad, .csv, .tsv, .txt (.gz), or a folder of volumes"
    raise InputError.one(f"atlas.input: {path}", f"a name ending in {path.suffix!r}", accepted)


# ------------------------------------------------------------------------------------------------------ volumes


def folder_table(folder: Path) -> pd.DataFrame:
    """Return the list of volumes in a folder: one file a gene, or one subfolder a gene with an energy.mhd in it.

    Raises
    ------
    InputError
        There is none, or a gene has two.
    """
    found: dict[str, Path] = {}
    faults = Faults()
    for path in sorted(folder.iterdir()):
        target = path / ENERGY if path.is_dir() else path
        ending = volumes.suffix(target)
        if not ending or not target.is_file():
            continue
        gene = path.name if path.is_dir() else path.name[: -len(ending)]
        if gene in found:
            both = f"{found[gene].relative_to(folder)} and {target.relative_to(folder)}"
            faults.add(f"atlas.input: {folder}", both, "one volume a gene")
        found[gene] = target
    if not found:
        expected = f"volumes ({', '.join(volumes.SUFFIXES)}), or folders with an {ENERGY}"
        faults.add(f"atlas.input: {folder}", "no volume", expected)
    faults.raise_if_any()
    table = pd.DataFrame({"gene": list(found), "path": [str(path) for path in found.values()]})
    return table.assign(experiment="", plane="", sha256="")


def read_volumes(table: pd.DataFrame, options: Options, annotation: np.ndarray | None, scratch: Path) -> Raw:
    """Read one volume a gene.

    Of several experiments of a gene, those with enough data for their plane come before the others, then coronal ones
    before sagittal ones, then those with more data.

    Parameters
    ----------
    table
        As `tables.gene_table` or `folder_table` gives it.
    options, annotation, scratch
        As in `read_input`.

    Raises
    ------
    InputError
        No row is of the planes wanted, a volume cannot be read, or is of another shape.
    """
    chosen = table[table["plane"].isin(["", *options.planes])]
    if chosen.empty:
        raise InputError.one("atlas.planes", ", ".join(options.planes), "planes that the table of genes has")
    genes, which = np.unique(chosen["gene"].to_numpy(str), return_inverse=True)
    place, shape, stored = None, None, None
    best = [(False, False, -1.0)] * len(genes)
    about = pd.DataFrame({"plane": "", "experiment": ""}, index=range(len(genes)), dtype=object)
    for number, (gene, row) in enumerate(zip(which, chosen.itertuples()), 1):
        where = f"atlas.input: {row.gene} ({row.path})"
        volume = volumes.to_zyx(volumes.read_volume(row.path, where), options.axes)
        if stored is None:
            shape = volume.shape
            check_shape(shape, annotation, where)
            place = candidates(options, shape, annotation)
            stored = np.lib.format.open_memmap(scratch / "volumes.npy", "w+", np.float32, (len(genes), len(place)))
        elif volume.shape != shape:
            found, expected = (" x ".join(map(str, size)) for size in (volume.shape, shape))
            raise InputError.one(where, found, f"{expected}, as the volumes before it")
        values = volume[tuple(place.T)].astype(np.float32)
        valid = 1 - is_missing(values, options.missing).mean()
        rank = (bool(valid >= wanted_share(row.plane, options)), row.plane != "sagittal", valid)
        if rank > best[gene]:
            best[gene] = rank
            stored[gene] = values
            about.iloc[gene] = [row.plane, row.experiment]
        if number % 200 == 0:
            log.info("%d of %d volumes read", number, len(chosen))
    return Raw(stored.T, genes, np.arange(len(place)), place.astype(np.float32), shape, about)


def wanted_share(plane: str, options: Options) -> float:
    """Return the share of voxels in which a gene must have data."""
    return options.min_valid_sagittal if plane == "sagittal" else options.min_valid


def is_missing(values: np.ndarray, codes: Sequence[float]) -> np.ndarray:
    """Return where values mean that there is no data: NaN, or one of the codes."""
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    for code in codes:
        missing |= values == code
    return missing


# ------------------------------------------------------------------------------------------------------- arrays


def read_array(options: Options, annotation: np.ndarray | None) -> Raw:
    """Read a .npy or .npz: genes x grid, grid x genes, or positions x genes.

    A .npz may also hold ``genes``, ``coordinates`` (voxels x 3: z, y, x) with the grid's ``shape``, and ``voxel_um``.

    Raises
    ------
    InputError
        The array has another number of dimensions, genes or positions than the tables beside it say.
    """
    where = f"atlas.input: {options.input}"
    held = _load_arrays(Path(options.input), where)
    values = held["expression"]
    if values.dtype.kind not in "iufb" or values.ndim not in (2, 4):
        found = f"{values.ndim} dimensions of {values.dtype}"
        raise InputError.one(where, found, "numbers: 4-D (genes and a grid) or 2-D (positions x genes)")
    if "voxel_um" in held and float(held["voxel_um"]) != options.voxel_um:
        raise InputError.one(
            "atlas.voxel_um", options.voxel_um, f"{float(held['voxel_um']):g}, as {options.input} says"
        )
    if options.genes:
        genes = tables.gene_names(options.genes, f"atlas.genes: {options.genes}")
    elif "genes" in held:
        genes = tables.checked_names(held["genes"].astype(str), f"{where}, genes")
    else:
        raise InputError.one("atlas.genes", "nothing", "the table with the names of the array's genes")
    if values.ndim == 4:
        return _from_grid(values, genes, options, annotation, where)
    position, shape = _array_positions(held, options, where)
    _check_length(len(values), len(position), where)
    _check_genes(values.shape[1], len(genes), where)
    return Raw(values, genes, np.arange(len(position)), position, shape)


def _load_arrays(path: Path, where: str) -> dict[str, np.ndarray]:
    """Return the array, called expression, and what else lies beside it."""
    try:
        if path.suffix.lower() == ".npy":
            return {"expression": np.load(path, mmap_mode="r", allow_pickle=False)}
        with np.load(path, allow_pickle=False) as stored:
            held = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise InputError.one(where, f"a file that cannot be read ({error})", "an array of numbers") from error
    known = {"expression": ("expression", "energy", "X", "x"), "genes": ("genes", "gene_names", "gene")}
    known |= {"coordinates": ("coordinates", "positions"), "shape": ("shape",), "voxel_um": ("voxel_um",)}
    found = {name: held[key] for name, keys in known.items() for key in reversed(keys) if key in held}
    if "expression" not in found and len(held) == 1:
        found["expression"] = next(iter(held.values()))
    if "expression" not in found:
        raise InputError.one(where, f"the arrays {', '.join(held) or 'none'}", "one called expression")
    return found


def _array_positions(held: dict, options: Options, where: str) -> tuple[np.ndarray, tuple[int, int, int] | None]:
    if options.positions:
        return _positions(options)[0], None
    if "coordinates" not in held:
        raise InputError.one("atlas.positions", "nothing", "the table of where the array's rows lie")
    coordinates = np.asarray(held["coordinates"], np.float64)
    if coordinates.ndim != 2 or coordinates.shape[1] != 3:
        raise InputError.one(f"{where}, coordinates", f"shape {coordinates.shape}", "voxels x 3 (z, y, x)")
    shape = tuple(int(size) for size in held["shape"]) if "shape" in held else None
    return tables.finite_positions(coordinates, f"{where}, coordinates"), shape


def _from_grid(values: np.ndarray, genes: np.ndarray, options: Options, annotation, where: str) -> Raw:
    """Return a 4-D array as stored voxels x genes, without copying it."""
    axes = options.axes
    if not values.flags.c_contiguous and values.flags.f_contiguous:
        values, axes = values.T, axes[::-1]  # the same bytes, read the other way round
    else:
        values = np.ascontiguousarray(values)
    last = _genes_last(values.shape, len(genes), axes, annotation, where)
    grid = values.shape[:-1] if last else values.shape[1:]
    flat = values.reshape(-1, len(genes)) if last else values.reshape(len(genes), -1).T
    shape = tuple(grid[axes.index(axis)] for axis in "zyx")
    place = candidates(options, shape, annotation)
    stored = np.ravel_multi_index([place[:, "zyx".index(axis)] for axis in axes], grid)
    return Raw(flat, genes, stored, place.astype(np.float32), shape)


def _genes_last(shape: tuple, n_genes: int, axes: str, annotation: np.ndarray | None, where: str) -> bool:
    """Return whether the genes are the last axis of a 4-D array, by its sizes."""
    fits = {}
    for last in (False, True):
        grid = shape[:-1] if last else shape[1:]
        same = annotation is None or tuple(grid[axes.index(axis)] for axis in "zyx") == annotation.shape
        fits[last] = same and n_genes == (shape[-1] if last else shape[0])
    if fits[True] != fits[False]:
        return fits[True]
    found = " x ".join(map(str, shape))
    expected = f"{n_genes} genes before or after the grid"
    if annotation is not None:
        expected += f" of the annotation ({' x '.join(map(str, annotation.shape))}: z, y, x)"
    raise InputError.one(where, found, expected, "Check atlas.genes, atlas.annotation and atlas.axes.")


def _check_length(n: int, wanted: int, where: str) -> None:
    if n != wanted:
        hint = "Each row of the expression needs its row of atlas.positions (see atlas.positions_rows)."
        raise InputError.one(where, f"{n} rows", f"{wanted}, as there are positions", hint)


def _check_genes(n: int, wanted: int, where: str) -> None:
    if n != wanted:
        hint = "Rows are positions and columns genes: transpose it if they are not."
        raise InputError.one(where, f"{n} columns", f"{wanted}, as there are names of genes", hint)


# ------------------------------------------------------------------------------------------- positions x genes


def _positions(options: Options) -> tuple[np.ndarray, np.ndarray | None]:
    if not options.positions:
        raise InputError.one("atlas.positions", "nothing", "the table of where the rows of atlas.input lie")
    where = f"atlas.positions: {options.positions}"
    return tables.positions(options.positions, options.coordinates, options.positions_rows, where)


def read_matrix(options: Options) -> Raw:
    """Read a table of positions x genes.

    Raises
    ------
    InputError
        It does not fit its table of positions, in number or in the names of the rows.
    """
    position, place_names = _positions(options)
    where = f"atlas.input: {options.input}"
    values, genes, names = tables.matrix(options.input, len(position), where)
    if names is not None and place_names is not None and (names != place_names).any():
        at = int(np.flatnonzero(names != place_names)[0])
        found, wanted = f"row {at + 1} called '{names[at]}'", f"'{place_names[at]}', as in atlas.positions"
        raise InputError.one(where, found, wanted, "Bring both into one order.")
    return Raw(values, genes, np.arange(len(position)), position)


def read_h5ad(options: Options) -> Raw:
    """Read X, var names and positions of an h5ad; X may be dense or compressed sparse rows.

    Raises
    ------
    InputError
        It cannot be read, or has no positions in three dimensions.
    """
    import h5py

    from histoweft.io import CountsFile, read_element

    where = f"atlas.input: {options.input}"
    try:
        with h5py.File(options.input, "r") as file:
            if "X" not in file or "obs" not in file or "var" not in file:
                raise InputError.one(where, f"the elements {', '.join(file)}", "X, obs and var")
            genes = tables.checked_names(read_element(file["var"][file["var"].attrs["_index"]]), f"{where}, var")
            position = _h5ad_positions(file, options, where)
            dense = _dense(file["X"]) if isinstance(file["X"], h5py.Dataset) else None
    except OSError as error:
        raise InputError.one(where, f"a file that cannot be read ({error})", "an h5ad file") from error
    if dense is None:
        with CountsFile(options.input) as counts:
            dense = np.empty(counts.shape, np.float32)
            for rows, chunk in counts.chunks():
                dense[rows] = chunk.toarray()
    _check_length(len(dense), len(position), where)
    return Raw(dense, genes, np.arange(len(position)), position)


def _dense(node) -> np.ndarray:
    values = np.empty(node.shape, np.float32)
    for rows in row_chunks(node.shape):
        values[rows] = node[rows]
    return values


def _h5ad_positions(file, options: Options, where: str) -> np.ndarray:
    from histoweft.io import read_element

    if options.positions:
        return _positions(options)[0]
    obs = file["obs"]
    if all(name in obs for name in options.coordinates):
        numbers = np.column_stack([read_element(obs[name]) for name in options.coordinates])
        return tables.finite_positions(numbers.astype(np.float64), f"{where}, obs")
    for name in ("spatial_3d", "spatial", "X_spatial"):
        if name in file.get("obsm", {}):
            place = np.asarray(read_element(file["obsm"][name]), np.float64)
            if place.ndim == 2 and place.shape[1] == 3:
                return tables.finite_positions(place[:, ::-1], f"{where}, obsm {name}")
    listed = ", ".join([*(f"obsm {name}" for name in file.get("obsm", {})), *(f"obs {name}" for name in obs)][:10])
    hint = "Name the columns that are z, y and x: atlas.coordinates."
    raise InputError.one(
        where, f"no positions in three dimensions ({listed})", "obsm spatial_3d, or obs z, y and x", hint
    )
