"""What every reader takes and gives: `SampleInput`, `Discovery`, `RawSection`, `Section`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histoweft.errors import Faults

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from scipy import sparse

NAN = float("nan")


@dataclass(frozen=True)
class Note:
    """Something that was survived: goes to the log and into ``uns['histoweft']['warnings']``.

    Parameters
    ----------
    code
        A word a program can look for, such as ``off_tissue``.
    message
        A sentence for people, with the numbers in it.
    """

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass
class Notes:
    """The warnings of one sample, in the order they came up, and what was chosen where a file left a choice.

    Parameters
    ----------
    items
        Warnings: something a person should look at.
    choices
        Topic -> what was taken and why, for every sample alike: ``counts`` -> ``layers/counts, by its name``. No
        warnings; the page lists them under "How the files were read".
    """

    items: list[Note] = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)

    def add(self, code: str, message: str) -> None:
        """Note one warning; the same one is kept once."""
        note = Note(code, message)
        if note not in self.items:
            self.items.append(note)

    def choose(self, topic: str, taken: str) -> None:
        """Note what was taken for a topic: a column, a layer, a scale, a file."""
        self.choices[topic] = taken

    def extend(self, other: Notes) -> None:
        """Take over the warnings and choices that another step noted."""
        for note in other.items:
            self.add(note.code, note.message)
        self.choices.update(other.choices)


@dataclass(frozen=True)
class SampleInput:
    """One line of the sample sheet, with the options that ingest needs.

    Parameters
    ----------
    sample, platform, path
        As in the sheet; `platform` is one of `histoweft.ingest.readers.PLATFORMS`.
    patient, batch, condition
        Passed through to ``uns['histoweft']``.
    image
        Image file; empty means "the one found beside the data", ``none`` means no image.
    mpp
        Micrometres per full-resolution pixel (per coordinate unit where there is no image); None unknown.
    labels, labels_column
        Table of expert labels (or, for h5ad and loom, the name of an obs column) and its label column.
    positions
        Coordinates table, where it is not beside the counts under a known name.
    alignment
        Xenium; the matrix that lays the image on the run, ``none`` where they share their axes already.
    layer
        Which matrix of an h5ad or loom file holds the counts; empty to find out.
    subset
        Spots to keep: ``column=value``; also ``!=``, ``a|b`` for either, ``;`` between conditions.
    options
        See `OPTIONS`.
    where
        How faults name this line: ``config/samples.tsv, line 4``.
    read_as
        Topic -> what was taken for the sheet's own words, such as a path of another spelling.
    """

    sample: str
    platform: str
    path: str | Path
    patient: str = ""
    batch: str = ""
    condition: str = ""
    image: str | Path = ""
    mpp: float | None = None
    labels: str | Path = ""
    labels_column: str = ""
    positions: str | Path = ""
    alignment: str | Path = ""
    layer: str = ""
    subset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    read_as: Mapping[str, str] = field(default_factory=dict)

    def option(self, name: str) -> Any:
        """Return an option's value, or its default."""
        value = self.options.get(name)
        return OPTIONS[name] if value is None else value

    def at(self, column: str) -> str:
        """Return how a fault names one cell of this sample's line."""
        return f"{self.where or f'sample {self.sample}'}, column {column}"


# name -> default; what each one does is said in the config schema
OPTIONS: dict[str, Any] = {
    "counts": "refuse",  # refuse | round | as_is: what to do with counts that are not integers
    "bin_um": 8,  # Visium HD bin size
    "mpp_tolerance": 0.15,  # sheet against spot pitch, relative
    "outside_image_tolerance": 0.01,  # share of spots allowed outside the image
    "image_scale": None,  # image pixels per coordinate unit, where no scale factor file says it
    "keep_off_tissue": False,  # keep the spots that the platform calls off-tissue
    "spot_pitch_um": None,  # distance between neighbouring spots, where it is not the platform's usual one
    "spot_diameter_um": None,  # likewise
    "obs_columns": (),  # columns of an h5ad's obs (loom: column attributes) to carry along
}


@dataclass
class Discovery:
    """The files of one sample, found without opening any.

    Parameters
    ----------
    roles
        Role (``matrix``, ``positions``, ``scalefactors`` ...) -> file; the mtx trio is
        ``matrix``, ``barcodes``, ``features``.
    image
        The image that will be read, or None.
    image_kind
        ``fullres``, ``hires``, ``lowres`` or ``given`` (its scale is told elsewhere); empty without image.
    faults
        What is missing or cannot be read.
    notes
        What was chosen where there was a choice.
    image_faults
        What the image lacks, if it is one that can be used at all: its own faults come first.
    """

    roles: dict[str, Path] = field(default_factory=dict)
    image: Path | None = None
    image_kind: str = ""
    faults: Faults = field(default_factory=Faults)
    notes: Notes = field(default_factory=Notes)
    image_faults: Faults = field(default_factory=Faults)

    @property
    def files(self) -> list[Path]:
        """Every file that `read` will open, the image last."""
        # of an image inside another file: that file
        images = [getattr(self.image, "path", self.image)] if self.image else []
        return [*self.roles.values(), *(path for path in images if path not in self.roles.values())]


@dataclass
class RawSection:
    """What a platform module hands over before the common checks.

    Parameters
    ----------
    counts
        (n, g) matrix of any number type, sparse.
    barcodes
        n names.
    gene_ids, gene_names
        g identifiers and g symbols; equal where the file has one kind only.
    positions
        Frame indexed by barcode with ``x``, ``y`` (full-resolution pixels) and, where known, ``in_tissue``,
        ``array_row``, ``array_col``; may hold more or fewer barcodes than the matrix. None for plain scRNA.
    counts_advice
        What else the file holds, and how to choose it: for the message where these are no counts.
    logged
        Whether the file says that these values are logarithms.
    species
        As the file states it; empty where it does not.
    on_lattice
        Spots or bins, which never share a place.
    stored
        What the platform's second step, which places the observations, needs of the file.
    """

    counts: sparse.csr_matrix
    barcodes: np.ndarray
    gene_ids: np.ndarray
    gene_names: np.ndarray
    feature_types: np.ndarray | None = None
    genomes: np.ndarray | None = None
    positions: pd.DataFrame | None = None
    obs: pd.DataFrame | None = None
    layers: dict[str, sparse.csr_matrix] = field(default_factory=dict)
    mpp: float = NAN  # stated by the platform's own files
    mpp_estimate: float = NAN  # from the spot pitch
    mpp_source: str = ""
    spot_diameter_um: float = NAN
    spot_px: float = NAN  # diameter of a spot as the platform's own files say
    image_scale: float = NAN
    image_frame: tuple[float, float] | None = None  # width and height of the full-resolution picture, by other files
    library_ids: list[str] = field(default_factory=list)
    counts_where: str = ""
    counts_advice: str = ""
    logged: bool = False
    species: str = ""
    on_lattice: bool = False
    stored: dict[str, Any] = field(default_factory=dict)

    def keep(self, rows: np.ndarray) -> None:
        """Leave the observations of a mask (n,) only, before anything is judged."""
        self.counts = self.counts[rows]
        self.barcodes = self.barcodes[rows]
        self.layers = {name: layer[rows] for name, layer in self.layers.items()}
        self.obs = None if self.obs is None else self.obs[rows]
        if "obsm" in self.stored:
            self.stored["obsm"] = {name: values[rows] for name, values in self.stored["obsm"].items()}


@dataclass
class Section:
    """One checked sample.

    Parameters
    ----------
    counts
        (n, g) CSR, int32 (float32 when ``counts: as_is`` let fractions through).
    obs, var
        Frames indexed by barcode (n rows) and by unique gene symbol (g rows).
    xy_px
        (n, 2) float64, x and y in full-resolution pixels; None for plain scRNA.
    mpp
        Micrometres per full-resolution pixel; NaN unknown.
    image, image_kind, image_scale
        Source image, which one it is, and its pixels per full-resolution pixel.
    image_orientation
        Orientation tag by which the image is turned.
    dropped
        Why -> how many spots were left out.
    read_as
        Topic -> what was taken from the files where there was a choice.
    """

    sample: str
    platform: str
    counts: sparse.csr_matrix
    obs: pd.DataFrame
    var: pd.DataFrame
    xy_px: np.ndarray | None = None
    mpp: float = NAN
    mpp_source: str = "unknown"
    spot_diameter_um: float = NAN
    image: Path | None = None
    image_kind: str = ""
    image_scale: float = NAN
    image_size: tuple[int, int] | None = None
    image_orientation: int = 1
    layers: dict[str, sparse.csr_matrix] = field(default_factory=dict)
    species: str = ""
    library_ids: list[str] = field(default_factory=list)
    patient: str = ""
    batch: str = ""
    condition: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    warnings: list[Note] = field(default_factory=list)
    read_as: dict[str, str] = field(default_factory=dict)
