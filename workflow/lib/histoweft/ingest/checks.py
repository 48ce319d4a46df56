"""Checks at load. Each takes arrays and frames and notes faults (cannot go on) or warnings (survived)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from histoweft.errors import Faults
from histoweft.ingest.section import NAN, Notes
from histoweft.paths import plain
from histoweft.places import spacing
from histoweft.species import ENSEMBL, guess_species

# FlyBase, WormBase, SGD, Entrez with a prefix, RefSeq, Ensembl's other species
IDENTIFIER = re.compile(r"^(?:ENS[A-Z]{0,6}[GTP]\d{6,}|FBgn\d{7}|WBGene\d{8}|Y[A-P][LR]\d{3}[WC](?:-[A-Z])?"
                        r"|AT[1-5MC]G\d{5}|LOC\d{5,}|[NX][MR]_\d{6,})(?:\.\d+)?(?:_PAR_Y)?$")  # fmt: skip
NUMBER = re.compile(r"^\d+(?:\.0)?$")
NO_NAME = {"", "nan", "none", "<na>", "na", "n/a", "null", "-"}
"""Words that stand for no name, in any case; none is a gene."""
EXCEL_DATE = re.compile(r"^\d{1,2}-(Mar|Sep|Dec|Sept)$|^(Mar|Sep|Dec|Sept)-\d{1,2}$", re.I)
POLICIES = ("refuse", "round", "as_is")
MAX_COUNT = 2**31 - 128  # the largest float32 below 2^31
BLOCK = 4_000_000
APART = (0.2, 1000)  # micrometres between neighbours: bins of Stereo-seq to arrays of spots


def check_counts(
    counts: sparse.csr_matrix,
    barcodes: Sequence[str],
    genes: Sequence[str],
    policy: str,
    where: str,
    faults: Faults,
    notes: Notes,
    advice: str = "",
    logged: bool = False,
) -> sparse.csr_matrix:
    """Return counts as int32 (float32 with ``as_is`` and fractions), noting what is wrong with the values.

    Logarithms are refused under every policy: rounded they are no counts, and later steps would take logs of them.

    Parameters
    ----------
    counts
        (n, g) CSR of any number type. It is not to be used afterwards: float32 values are turned in place.
    policy
        What to do with fractions: ``refuse`` (a fault), ``round`` or ``as_is``.
    advice
        What else the file holds, for the message where these are no counts.
    logged
        Whether the file says that these are logarithms.
    """
    if policy not in POLICIES:
        faults.add("config: ingest.counts", repr(policy), " | ".join(POLICIES))
        return counts
    counts = counts if sparse.isspmatrix_csr(counts) else sparse.csr_matrix(counts)
    data = counts.data

    def refuse(test, what: str, expected: str = "counts of 0 or more", hint: str = "") -> bool:
        """Note a fault naming barcode, gene and value of the first entry that fails the test."""
        first, n = _scan(data, test)
        if n:
            row = int(np.searchsorted(counts.indptr, first, side="right")) - 1
            place = f"{data[first]:g} for gene {genes[counts.indices[first]]} in {barcodes[row]}"
            faults.add(where, f"{what}: {place} ({n} of {data.size} non-zero values are so)", expected, hint)
        return n > 0

    scaled = f"Scaled or corrected values cannot be used: give the raw counts. {advice}".strip()
    if refuse(lambda v: ~np.isfinite(v), "a value that is no number (NaN)") or refuse(
        lambda v: v < 0, "a negative count", hint=scaled
    ):
        return counts
    if refuse(lambda v: v > MAX_COUNT, "a count too large for 32 bits", f"counts up to {MAX_COUNT}"):
        return counts
    fractions = _scan(data, _is_fraction)[1]
    share = f"{fractions} of {data.size} non-zero values"
    if fractions and (evidence := log_evidence(counts, logged)):
        hint = f"Rounding cannot make counts of them. {advice or 'Give the raw counts.'}"
        refuse(_is_fraction, f"logarithms, no counts ({evidence})", "integer counts", hint)
        return counts
    if fractions and policy == "refuse":
        options = (
            "set ingest.counts: round (to the nearest integer) or ingest.counts: as_is (kept; steps that need counts "
            "then refuse this sample)."
        )
        hint = f"{advice} Or {options}" if advice else f"Give raw counts, or {options}"
        refuse(_is_fraction, "a count that is not an integer", "integer counts", hint)
        return counts
    if fractions and policy == "as_is":
        notes.add("counts_as_is", f"{share} are not integers and were kept: steps that need counts cannot run")
        return _with_data(counts, data.astype(np.float32, copy=False))
    out = _with_data(counts, _as_int32(data))
    if fractions:
        notes.add("counts_rounded", f"{share} were not integers and were rounded")
        out.eliminate_zeros()
    return out


LOG_BASES = {"log1p": np.expm1, "log2(x + 1)": lambda v: np.exp2(v) - 1, "log10(x + 1)": lambda v: 10.0**v - 1}


def log_evidence(counts: sparse.csr_matrix, stated: bool = False) -> str:
    """Return what shows values to be logarithms of counts, or an empty string.

    Undoing the logarithm gives whole numbers, or the same total in every observation, or whole multiples of each
    observation's smallest value, as only logarithms do; or the file says so.

    Parameters
    ----------
    counts
        (n, g) with fractions among its values; up to 500 rows that hold something are looked at.
    stated
        Whether the file says that the logarithm was taken.
    """
    filled = np.flatnonzero(np.diff(counts.indptr) > 0)
    rows = counts[filled[:: max(1, len(filled) // 500)][:500]].astype(np.float64)
    rows.eliminate_zeros()
    rows = rows[np.diff(rows.indptr) > 0]
    largest = float(rows.data.max()) if rows.nnz else 0.0
    if rows.nnz == 0 or largest > 40 or (rows.data < 0).any():
        return ""
    values = rows.data
    starts = rows.indptr[:-1]
    if _multiples(values, starts):
        return ""  # whole multiples as they stand: counts divided by something, no logarithms
    for name, undo in LOG_BASES.items():
        if largest > (40 if name == "log1p" else 25 if name == "log2(x + 1)" else 12):
            continue
        back = undo(values)
        totals = np.add.reduceat(back, starts)
        if _all_whole(back):
            return f"undoing {name} gives whole numbers"
        if len(totals) > 5 and totals.std() < 1e-2 * totals.mean():
            return f"undoing {name} gives the same total, {totals.mean():,.0f}, in every observation"
        if _multiples(back, starts):
            return f"undoing {name} gives whole multiples of each observation's smallest value"
    return f"uns['log1p'] says so, and the largest is {largest:.3g}" if stated else ""


def _near_whole(values: np.ndarray) -> np.ndarray:
    """Return which values are whole numbers, as far as float32 tells."""
    return np.abs(values - np.rint(values)) <= np.minimum(0.05, 1e-3 * np.maximum(1, values))


def _all_whole(values: np.ndarray) -> bool:
    """Return whether nearly all values are whole numbers, and not all of them ones."""
    return bool(_near_whole(values).mean() > 0.99 and (np.rint(values) > 1).mean() > 0.02)


def _multiples(values: np.ndarray, starts: np.ndarray) -> bool:
    """Return whether, in most rows, all values are whole multiples of the smallest: of what one count became.

    Rows whose smallest count is not one, and those of one value, show nothing.
    """
    sizes = np.diff(np.append(starts, len(values)))
    times = values / np.repeat(np.minimum.reduceat(values, starts), sizes)
    whole = np.logical_and.reduceat(_near_whole(times), starts)
    telling = np.maximum.reduceat(times, starts) > 1.5
    return bool(telling.sum() >= 5 and whole[telling].mean() > 0.5)


def is_identifier(name: str) -> bool:
    """Return whether a name is a gene's identifier in a known data base, no symbol."""
    return bool(IDENTIFIER.match(name))


def is_number(name: str) -> bool:
    """Return whether a name is a number only."""
    return bool(NUMBER.match(name))


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))


def _scan(data: np.ndarray, test: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
    """Return the position of the first value that fits the test and how many do, in blocks to spare memory."""
    first, n = -1, 0
    for block in _blocks(data.size):
        hit = test(data[block])
        if found := int(np.count_nonzero(hit)):
            first = block.start + int(np.argmax(hit)) if first < 0 else first
            n += found
    return first, n


def _is_fraction(values: np.ndarray) -> np.ndarray:
    return values != np.rint(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def _as_int32(data: np.ndarray) -> np.ndarray:
    """Return rounded values as int32; float32 is overwritten in place, so that a large matrix is held once."""
    if data.dtype == np.int32:
        return data
    out = data.view(np.int32) if data.dtype == np.float32 and data.flags.writeable else np.empty(data.size, np.int32)
    for block in _blocks(data.size):
        out[block] = np.rint(data[block])
    return out


def _with_data(counts: sparse.csr_matrix, data: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


def check_genes(
    ids: np.ndarray,
    names: np.ndarray,
    where: str,
    faults: Faults,
    notes: Notes,
    feature_types: np.ndarray | None = None,
    genomes: np.ndarray | None = None,
) -> tuple[pd.DataFrame, str]:
    """Return the var frame (index: symbol made unique; gene_id, feature_type) and the guessed species.

    Ensembl versions (``ENSG00000000003.15``) are cut off, so that identifiers of two annotations meet.
    """
    ids = np.array([str(v).strip() for v in ids], dtype=object)
    names = np.array([str(v).strip() for v in names], dtype=object)
    empty = np.array([n.casefold() in NO_NAME for n in names])
    no_id = np.array([i.casefold() in NO_NAME for i in ids])
    check_printable(names, "gene", where, faults, "Columns of the file of genes ran together.")
    check_printable(ids, "gene", where, faults)
    if (empty & no_id).any():
        rows = ", ".join(str(i + 1) for i in np.flatnonzero(empty & no_id)[:5])
        faults.add(where, f"{int((empty & no_id).sum())} genes without a name (row {rows})", "a name for each gene")
    if (empty & ~no_id).any():
        notes.add("gene_names", f"{int((empty & ~no_id).sum())} genes without a symbol are called by their identifier")
        names[empty] = ids[empty]
    ids[no_id] = names[no_id]
    ids, versions = strip_versions(ids)
    names, _ = strip_versions(names)
    if versions:
        notes.add("gene_versions", f"the version was cut off {versions} Ensembl identifiers")
    kinds = np.array([bool(ENSEMBL.match(n)) for n in names])
    share = kinds.mean() if len(kinds) else 0.0
    if 0.05 < share < 0.95:
        notes.add("gene_mixture", f"{share:.0%} of the gene names are Ensembl identifiers, the others symbols")
    if len(names) and sum(map(is_number, names)) > len(names) / 2:
        notes.add(
            "gene_numbers", f"gene names are numbers (first: {names[0]}): steps that know genes by name find none"
        )
    if dates := [n for n in names if EXCEL_DATE.match(n)]:
        notes.add("gene_dates", f"{len(dates)} gene names look like spreadsheet dates (first: {dates[0]})")
    unique, repeated = make_unique(names)
    if repeated:
        shown = ", ".join(sorted({n for n, u in zip(names, unique) if n != u})[:5])
        notes.add("gene_duplicates", f"{repeated} gene names occur again and got a number ({shown}); gene_id kept")
    types = np.array(["Gene Expression"] * len(names), object) if feature_types is None else feature_types
    var = pd.DataFrame(
        {"gene_id": ids.astype(str), "feature_type": pd.Categorical(types)}, index=pd.Index(unique, name="gene")
    )
    return var, guess_species(ids, names, genomes)


def strip_versions(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the identifiers without Ensembl version, and how many had one."""
    out, stripped = values.copy(), 0
    for i, value in enumerate(values):
        if value.startswith("ENS") and (match := ENSEMBL.match(value)) and match.group("version"):
            out[i] = value.replace(match.group("version"), "", 1)
            stripped += 1
    return out, stripped


def make_unique(names: Sequence[str]) -> tuple[np.ndarray, int]:
    """Return the names with ``-1``, ``-2`` ... added to repeats (never onto a name in use), and how many changed."""
    taken, seen, out, changed = set(names), {}, [], 0
    for name in names:
        if name not in seen:
            seen[name] = 0
            out.append(name)
            continue
        while True:
            seen[name] += 1
            candidate = f"{name}-{seen[name]}"
            if candidate not in taken:
                break
        taken.add(candidate)
        out.append(candidate)
        changed += 1
    return np.array(out, dtype=object), changed


def check_printable(names: Sequence[str], what: str, where: str, faults: Faults, hint: str = "") -> None:
    """Note a fault where names hold tabs, line breaks or other signs that no name has."""
    if broken := [i for i, name in enumerate(names) if not str(name).isprintable()]:
        faults.add(
            f"{where}, {what} {broken[0] + 1}",
            f"the name {names[broken[0]]!r} ({len(broken)} of {len(names)} names are so)",
            "a name without tabs, line breaks and control characters",
            hint,
        )


def check_duplicates(barcodes: Sequence[str], where: str, faults: Faults, hint: str = "") -> None:
    """Note a fault when a barcode occurs twice."""
    index = pd.Index(barcodes)
    if index.has_duplicates:
        repeated = index[index.duplicated()].unique()
        shown = ", ".join(map(str, repeated[:3]))
        faults.add(where, f"{len(repeated)} barcodes more than once ({shown})", "each barcode once", hint)


def without_suffix(barcodes: Sequence[str]) -> pd.Index:
    """Return barcodes without the ``-1`` (gem group) at their end."""
    return pd.Index([re.sub(r"-\d+$", "", str(b)) for b in barcodes])


def match_barcodes(
    barcodes: Sequence[str],
    others: Sequence[str],
    what: str,
    where: str,
    faults: Faults,
    notes: Notes,
    complete: bool = False,
) -> np.ndarray | None:
    """Return, for each barcode of the matrix, its row in another table (-1 where it has none).

    Where only the ``-1`` suffix differs, it is ignored on both sides, with a warning.

    Parameters
    ----------
    what
        How the table is called in messages: ``positions``.
    complete
        Whether a barcode without a row is a fault, as one run wrote both; else it is dropped later, with a warning.
    """
    index = pd.Index(others)
    if index.has_duplicates:
        if not pd.Index(barcodes).has_duplicates:  # of those the matrix repeats, its own check tells
            check_duplicates(others, where, faults)
        return None
    rows = index.get_indexer(pd.Index(barcodes))
    if (rows < 0).all() and len(rows):
        bare, bare_others = without_suffix(barcodes), without_suffix(others)
        if not bare.has_duplicates and not bare_others.has_duplicates:
            rows = bare_others.get_indexer(bare)
            if (rows >= 0).any():
                notes.add(
                    "barcode_suffix",
                    f"matrix ({barcodes[0]}) and {what} ({others[0]}) differ in the -1 suffix: ignored",
                )
    missing = int((rows < 0).sum())
    if missing == len(rows):
        faults.add(
            where,
            f"no barcode shared between matrix ({', '.join(map(str, barcodes[:2]))}) "
            f"and {what} ({', '.join(map(str, others[:2]))})",
            "the same barcodes in both",
            "These look like two different samples; a -1 suffix on one side only would have been repaired.",
        )
        return None
    if missing and complete:
        shown = ", ".join(str(barcodes[i]) for i in np.flatnonzero(rows < 0)[:3])
        faults.add(
            where,
            f"{missing} of {len(rows)} barcodes of the matrix without a row ({shown})",
            "a row for every barcode, as the two files of one run have",
            "The table is cut short, edited, or of another sample: take the one written with the matrix. To leave "
            "spots or cells out, give their names in a table of labels and choose them by the column subset.",
        )
        return None
    if missing:
        notes.add("barcodes_partial", f"{missing} of {len(rows)} barcodes are not in the {what}: dropped")
    return rows


def mpp_from_lattice(positions: pd.DataFrame, row_um: float, col_um: float, notes: Notes | None = None) -> float:
    """Return micrometres per pixel, from how pixel positions move with array row and column.

    The map from the slide's micrometre grid to pixels is affine (turn, scale, shift); its scale is taken from how it
    changes areas.

    Parameters
    ----------
    positions
        Frame with x, y (pixels), array_row, array_col.
    row_um, col_um
        Distance on the slide when array_row or array_col grows by one.
    notes
        Gets a warning when the pixels are stretched more than 5 % in one direction.

    Returns
    -------
    float
        NaN when the spots do not span two rows and columns.
    """
    if len(positions) < 3:
        return NAN
    grid = positions[["array_col", "array_row"]].to_numpy(float) * (col_um, row_um)
    pixels = positions[["x", "y"]].to_numpy(float)
    grid, pixels = grid - grid.mean(axis=0), pixels - pixels.mean(axis=0)
    if np.linalg.matrix_rank(grid) < 2:
        return NAN
    slope, *_ = np.linalg.lstsq(grid, pixels, rcond=None)
    long, short = np.linalg.svd(slope, compute_uv=False)
    if not short > 0:
        return NAN
    if notes is not None and long / short > 1.05:
        notes.add(
            "stretched",
            f"spots lie {long / short - 1:.0%} farther apart in one direction than in the other (in pixels per um): "
            f"the image was stretched; distances in um are off by up to {np.sqrt(long / short) - 1:.0%}",
        )
    return float(1 / np.sqrt(long * short))


def check_lattice(positions: pd.DataFrame, where: str, faults: Faults) -> None:
    """Note a fault where single places lie off the array that all others lie on: a damaged or edited table.

    Parameters
    ----------
    positions
        Frame indexed by barcode with x, y (pixels), array_row, array_col.
    """
    grid = np.column_stack([positions[["array_col", "array_row"]].to_numpy(float), np.ones(len(positions))])
    pixels = positions[["x", "y"]].to_numpy(float)
    sample = slice(None, None, max(1, len(grid) // 20_000))
    if len(grid) < 6 or np.linalg.matrix_rank(grid[sample]) < 3:
        return
    fit, weight = np.zeros((3, 2)), np.ones(len(grid[sample]))
    for _ in range(30):  # least absolute deviations by reweighted least squares: single places do not move the fit
        root = np.sqrt(weight)[:, None]
        fit, *_ = np.linalg.lstsq(grid[sample] * root, pixels[sample] * root, rcond=None)
        weight = 1 / np.maximum(np.linalg.norm(pixels[sample] - grid[sample] @ fit, axis=1), 1e-6)
    off = np.linalg.norm(pixels - grid @ fit, axis=1)
    step = np.linalg.norm(fit[:2], axis=1).min()
    lost = np.flatnonzero(off > step)
    if not len(lost) or len(lost) > 0.2 * len(off) or np.median(off) > 0.1 * step:
        return
    x, y = pixels[lost[0]]
    faults.add(
        f"{where}, barcode {positions.index[lost[0]]}",
        f"the place x {x:.6g}, y {y:.6g}, {off[lost[0]]:.4g} pixels off the array ({len(lost)} of {len(off)} are so)",
        f"about x {(grid @ fit)[lost[0], 0]:.6g}, y {(grid @ fit)[lost[0], 1]:.6g}, as its row and column of the array "
        "say",
        "Take the table as it was written: a line of this one is damaged or was edited.",
    )


def check_mpp(
    sheet: float | None,
    stated: float,
    estimate: float,
    source: str,
    tolerance: float,
    where: str,
    faults: Faults,
    notes: Notes,
) -> tuple[float, str]:
    """Return micrometres per pixel and where it is from: sheet, else the platform's file, else the estimate.

    A sheet's or file's value farther than `tolerance` (relative) from the spot pitch is a fault.
    """
    if sheet is not None and np.isfinite(sheet):
        if sheet <= 0:
            faults.add(where, f"{sheet:g}", "micrometres per pixel above 0")
            return NAN, "unknown"
        _compare(sheet, estimate, source, tolerance, where, faults)
        if np.isfinite(stated) and abs(stated / sheet - 1) > tolerance and not np.isfinite(estimate):
            _compare(sheet, stated, "the platform's own files", tolerance, where, faults)
        return float(sheet), "sheet"
    if np.isfinite(stated):
        if np.isfinite(estimate) and abs(estimate / stated - 1) > tolerance:
            notes.add("mpp", f"the files say {stated:.4g} um per pixel, {source} says {estimate:.4g}: took the files'")
        return float(stated), "platform files"
    if np.isfinite(estimate):
        return float(estimate), source
    notes.add("mpp", "um per pixel is unknown: distances stay in pixels (give mpp in the sheet)")
    return NAN, "unknown"


def check_spacing(xy: np.ndarray, mpp: float, source: str, notes: Notes) -> None:
    """Warn where the sheet's mpp puts neighbours nearer or farther than tissue has them, as another unit would."""
    apart = spacing(xy) * mpp if source == "sheet" and len(xy) > 1 else NAN
    if apart < APART[0] or apart > APART[1]:
        notes.add(
            "mpp",
            f"with {mpp:g} um per pixel from the sheet, neighbours lie {apart:.3g} um apart (median), where cells and "
            "spots lie some 5 to 200 um apart: mpp is micrometres (not nm or mm) per unit of the coordinates",
        )


def _compare(sheet: float, estimate: float, source: str, tolerance: float, where: str, faults: Faults) -> None:
    if np.isfinite(estimate) and abs(sheet / estimate - 1) > tolerance:
        faults.add(
            where,
            f"{sheet:g} um per pixel",
            f"about {estimate:.4g}, as {source} says",
            "mpp is of the full-resolution image that the coordinates refer to. Correct it, leave it empty to use "
            "the estimate, or raise ingest.mpp_tolerance.",
        )


def check_inside(
    xy: np.ndarray,
    size: tuple[int, int],
    scale: float,
    tolerance: float,
    where: str,
    faults: Faults,
    notes: Notes,
) -> None:
    """Note a fault when too many spots fall outside the image, with the change that would put them inside.

    Parameters
    ----------
    xy
        (n, 2) x and y in full-resolution pixels.
    size
        Width and height of the image, in its own pixels.
    scale
        Image pixels per full-resolution pixel.
    tolerance
        Share of spots that may lie outside.
    """
    if not len(xy):
        return
    outside = outside_share(xy * scale, size)
    if outside <= tolerance:
        span = (xy.max(axis=0) - xy.min(axis=0)) * scale / np.asarray(size)
        if span.max() < 0.2 and len(xy) > 1:
            share = f"{span[0]:.0%} of the image's width and {span[1]:.0%} of its height"
            notes.add("image_extent", f"the spots span only {share}: check image_scale ({scale:.4g} now)")
        if outside > 0:
            notes.add("outside_image", f"{round(outside * len(xy))} spots lie outside the image")
        return
    hint = "Check that image and data belong together."
    if outside_share(xy[:, ::-1] * scale, size) <= tolerance:
        hint = "With x and y swapped they would lie inside: exchange the two columns."
    else:
        fit = min(size[0] / xy[:, 0].max(), size[1] / xy[:, 1].max()) if (xy.max(axis=0) > 0).all() else NAN
        if np.isfinite(fit) and (xy.min(axis=0) > -1).all():
            hint = (
                f"A scale of at most {fit:.4g} image pixels per coordinate unit would put them inside "
                f"(now {scale:.4g}): is this a downsampled image? Give the sheet's column image_scale."
            )
    low, high = xy.min(axis=0) * scale, xy.max(axis=0) * scale
    faults.add(
        where,
        f"{outside:.1%} of {len(xy)} spots outside the image of {size[0]} x {size[1]} pixels "
        f"(spots span x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f})",
        f"at most {tolerance:.1%} outside",
        hint,
    )


def outside_share(xy: np.ndarray, size: tuple[int, int]) -> float:
    """Return the share of points outside an image of width x height."""
    return float(((xy < 0) | (xy >= np.asarray(size))).any(axis=1).mean())


_CONDITION = re.compile(r"^([^!=]+?)\s*(!?=)\s*(.*)$")


def subset_columns(rule: str) -> list[str]:
    """Return the columns that a `subset` rule asks for."""
    found = (_CONDITION.match(part.strip()) for part in rule.split(";"))
    return [match.group(1) for match in found if match]


def select(obs: pd.DataFrame, rule: str, where: str, faults: Faults) -> np.ndarray:
    """Return which rows a `subset` rule keeps: ``a=b``, ``a!=b``, ``a=b|c``, several joined by ``;``.

    A value that holds ``;`` or ``|`` itself is taken as it is where the column has it. Accents may be composed or not,
    a number may be written as 1 or 1.0, and a value may stand in quotes.
    """
    from histoweft.errors import nearest

    keep = np.ones(len(obs), bool)
    for part in _conditions(obs, rule):
        match = _condition(obs, part)
        if not match:
            faults.add(where, repr(part), "column=value or column!=value")
            continue
        column, sign, wanted = match
        if column not in obs:
            listed = ", ".join(map(str, obs.columns[:12])) or "none"
            faults.add(where, f"column {column!r}", f"one of: {listed}", nearest(column, obs.columns))
            continue
        hit = _holds(obs[column], wanted)
        if not hit.any() and sign == "=":
            levels = sorted(obs[column].astype(str).unique())
            listed = ", ".join(levels[:12]) + (" ..." if len(levels) > 12 else "")
            faults.add(where, f"{column}={wanted}, which no spot has", f"one of: {listed}", nearest(wanted, levels))
        keep &= hit if sign == "=" else ~hit
    return keep


def _conditions(obs: pd.DataFrame, rule: str) -> list[str]:
    """Return the conditions of a rule; a rule whose value holds a semicolon, as the column has it, is one."""
    whole = _condition(obs, rule)
    if ";" in rule and whole and whole[0] in obs and (obs[whole[0]].astype(str) == whole[2]).any():
        return [rule]
    return [part for part in (p.strip() for p in rule.split(";")) if part]


def _condition(obs: pd.DataFrame, part: str) -> tuple[str, str, str] | None:
    """Return column, sign and value; a column that the file has may itself hold an equals sign."""
    text = plain(part)
    for column in sorted(map(str, obs.columns), key=len, reverse=True):
        start = plain(column)
        match = re.match(r"\s*(!?=)\s*(.*)$", text[len(start) :], re.S) if text.startswith(start) else None
        if match:
            return column, match.group(1), match.group(2).strip()
    match = _CONDITION.match(part)
    return match.groups() if match else None


def _holds(values: pd.Series, wanted: str) -> np.ndarray:
    """Return which values are the wanted one, or one of several with bars between them."""
    codes, levels = pd.factorize(values.astype(str))
    names = [plain(name).strip() for name in (wanted, *wanted.split("|"))]
    names = [name[1:-1] if re.fullmatch("([\"']).*\\1|\u201c.*\u201d", name) else name for name in names]
    hit = np.isin([plain(level).strip() for level in levels], names)
    if not hit.any() and pd.api.types.is_numeric_dtype(_stored(values)):
        numbers = pd.to_numeric(pd.Series(names), errors="coerce").dropna()
        hit = pd.to_numeric(pd.Series(levels), errors="coerce").isin(numbers).to_numpy()
    return hit[codes]


def _stored(values: pd.Series) -> np.dtype:
    """Return the type of a column's values, of its categories where it has such."""
    return values.cat.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
