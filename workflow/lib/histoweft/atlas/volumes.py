"""Volumes from disk: NRRD, NIfTI, MetaImage (as the Allen Institute hands its grids out), NumPy."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from histoweft.errors import InputError

#: Longest first, so that a name's ending is found by the first that fits.
SUFFIXES = (".nii.gz", ".nrrd", ".nii", ".mhd", ".mha", ".npy", ".zip")
#: Largest member of a zip that is read, bytes: a 25 um grid in double precision has 570 MB.
MAX_MEMBER = 4 * 10**9
META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
AGAIN = "The file may be cut short by a broken copy: copy or download it again."


def suffix(path: str | os.PathLike) -> str:
    """Return which of the endings of volumes a file's name has, or an empty string."""
    name = Path(path).name.lower()
    return next((ending for ending in SUFFIXES if name.endswith(ending)), "")


def read_volume(path: str | os.PathLike, where: str = "") -> np.ndarray:
    """Read one volume.

    Parameters
    ----------
    path
        ``.nrrd``, ``.nii``, ``.nii.gz``, ``.mhd`` (with its .raw or .zraw beside it), ``.mha``, ``.npy``, or a ``.zip``
        that holds one ``.mhd`` with its data.
    where
        What messages call the file; its path when empty.

    Returns
    -------
    ndarray
        Three-dimensional, axes in the order of the file's header (for a MetaImage that of DimSize).

    Raises
    ------
    InputError
        The file is missing, damaged, of another format, or no volume of numbers.
    """
    where = where or str(path)
    reader = READERS.get(suffix(path))
    if reader is None:
        raise InputError.one(where, f"a name ending in {Path(path).suffix!r}", f"one of {', '.join(SUFFIXES)}")
    if not Path(path).is_file():
        raise InputError.one(where, f"{path}, which does not exist", "a volume", "Check the path for typing errors.")
    try:
        volume = reader(Path(path))
    except InputError as error:
        raise InputError.one(where, error.faults[0].found, error.faults[0].expected, error.faults[0].hint) from error
    except Exception as error:  # the formats' readers raise whatever their parsers do
        raise InputError.one(where, f"a file that cannot be read ({error})", "a volume", AGAIN) from error
    if volume.ndim == 4 and 1 in (volume.shape[0], volume.shape[-1]):
        volume = volume[..., 0] if volume.shape[-1] == 1 else volume[0]
    if volume.ndim != 3 or volume.dtype.kind not in "iufb":
        shape = " x ".join(map(str, volume.shape))
        raise InputError.one(where, f"an array of {shape} ({volume.dtype})", "three dimensions of numbers")
    return volume


def to_zyx(volume: np.ndarray, axes: str) -> np.ndarray:
    """Return a view with the axes in the order z, y, x.

    Parameters
    ----------
    volume
        Three-dimensional.
    axes
        What its axes are, e.g. ``xzy``.
    """
    return volume.transpose([axes.index(axis) for axis in "zyx"])


def _read_nrrd(path: Path) -> np.ndarray:
    import nrrd

    return nrrd.read(str(path), index_order="F")[0]


def _read_nifti(path: Path) -> np.ndarray:
    import nibabel

    image = nibabel.load(path)
    plain = image.dataobj.slope == 1 and image.dataobj.inter == 0
    return np.asarray(image.dataobj, dtype=None if plain else np.float32)


def _read_npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _read_meta(path: Path) -> np.ndarray:
    content = path.read_bytes()

    def beside(name: str) -> bytes:
        return (path.parent / name).read_bytes()

    return meta_image(content, beside)


def _read_zip(path: Path) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        headers = [m for m in archive.infolist() if m.filename.lower().endswith(".mhd")]
        if len(headers) != 1:
            listed = ", ".join(m.filename for m in archive.infolist()[:6]) or "nothing"
            raise InputError.one(path, f"{len(headers)} .mhd in it ({listed})", "one .mhd with its data")
        folder = PurePosixPath(headers[0].filename).parent

        def beside(name: str) -> bytes:
            return _member(archive, str(folder / name))

        return meta_image(_member(archive, headers[0].filename), beside)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return one member; it is read into memory and never unpacked, so that its name can do no harm."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise InputError.one(archive.filename, f"no member {name}", "the data its .mhd names", AGAIN) from None
    if member.file_size > MAX_MEMBER:
        raise InputError.one(archive.filename, f"{member.file_size} bytes in {name}", f"at most {MAX_MEMBER}")
    return archive.read(member)


def meta_image(content: bytes, beside: Callable[[str], bytes]) -> np.ndarray:
    """Return the volume of a MetaImage (https://itk.org/Wiki/ITK/MetaIO/Documentation).

    Parameters
    ----------
    content
        The header, followed by the data where ``ElementDataFile = LOCAL``.
    beside
        Returns the content of a file in the header's folder.

    Raises
    ------
    InputError
        The header lacks an entry or has one that is not known, or the data are of another size than it says.
    """
    header, rest = _meta_header(content)
    try:
        dims = [int(size) for size in header["DimSize"].split()]
        kind = META_TYPES[header["ElementType"]]
        name = header["ElementDataFile"]
    except (KeyError, ValueError) as error:
        raise InputError.one(
            "MetaImage header", f"no usable entry {error}", "DimSize, ElementType, ElementDataFile"
        ) from error
    if int(header.get("ElementNumberOfChannels", 1)) != 1:
        raise InputError.one("MetaImage header", f"{header['ElementNumberOfChannels']} channels", "one value a voxel")
    if PurePosixPath(name).name != name or "\\" in name or "%" in name or name == "LIST":
        raise InputError.one("MetaImage header", f"ElementDataFile = {name}", "the name of one file in the same folder")
    data = rest if name == "LOCAL" else beside(name)
    big = header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB", "False")).lower() == "true"
    dtype = np.dtype(kind).newbyteorder(">" if big else "<")
    wanted = int(np.prod(dims)) * dtype.itemsize
    if header.get("CompressedData", "False").lower() == "true":
        inflate = zlib.decompressobj(wbits=47)  # zlib or gzip
        data = inflate.decompress(data, wanted + 1)
    skip = int(header.get("HeaderSize", 0))
    data = data[len(data) - wanted if skip == -1 else skip :]
    if len(data) != wanted:
        raise InputError.one("MetaImage data", f"{len(data)} bytes", f"{wanted} for DimSize {header['DimSize']}", AGAIN)
    return np.frombuffer(data, dtype).reshape(dims, order="F")  # the first of DimSize runs fastest


def _meta_header(content: bytes) -> tuple[dict[str, str], bytes]:
    """Return the entries of a header up to ElementDataFile, which ends it, and what follows."""
    header: dict[str, str] = {}
    rest = content
    while rest and "ElementDataFile" not in header:
        line, _, rest = rest.partition(b"\n")
        key, equals, value = line.decode("latin-1").partition("=")
        if equals:
            header[key.strip()] = value.strip()
    return header, rest


READERS = {
    ".nrrd": _read_nrrd,
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
    ".mhd": _read_meta,
    ".mha": _read_meta,
    ".npy": _read_npy,
    ".zip": _read_zip,
}
