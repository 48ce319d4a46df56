"""Images that lie as an array in an HDF5 file, such as ``uns['spatial'][library]['images']['hires']`` of an h5ad."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from histoweft.errors import InputError

if TYPE_CHECKING:
    import h5py
    import numpy as np

_EXPECTED = "an array of (height, width) or (height, width, 3 or 4) numbers"
_ROWS = 512


@dataclass(frozen=True)
class EmbeddedImage:
    """An image inside an HDF5 file; written ``file::dataset``.

    Parameters
    ----------
    path
        The file.
    dataset
        The array in it: ``uns/spatial/lib1/images/hires``.
    """

    path: Path
    dataset: str

    def __str__(self) -> str:
        return f"{self.path}::{self.dataset}"

    @property
    def name(self) -> str:
        """How the image is called in the working image's description."""
        return f"{Path(self.path).name}::{self.dataset}"


def parse(text: str | Path | EmbeddedImage) -> Path | EmbeddedImage:
    """Return the `EmbeddedImage` that ``file::dataset`` stands for, or the path of any other image."""
    if isinstance(text, EmbeddedImage):
        return text
    path, separator, dataset = str(text).rpartition("::")
    return EmbeddedImage(Path(path), dataset) if separator else Path(text)


class EmbeddedSource:
    """An image in an HDF5 file, read as bands of rows."""

    def __init__(self, image: EmbeddedImage):
        import h5py

        self.path = image
        self.file = h5py.File(image.path, "r")
        try:
            self._look(self.file.get(image.dataset))
        except BaseException:
            self.file.close()
            raise

    def _look(self, array: h5py.Dataset | None) -> None:
        shape = getattr(array, "shape", None)
        if shape is None:
            raise InputError.one(self.path, "no array of that name", _EXPECTED)
        # some writers put the colours first
        self.first = len(shape) == 3 and shape[0] in (3, 4) and shape[2] not in (3, 4)
        sides = shape[1:] if self.first else shape[:2]
        samples = 1 if len(shape) == 2 else shape[0] if self.first else shape[-1]
        usable = len(shape) in (2, 3) and samples in (1, 3, 4) and min(sides, default=0) > 0
        if not usable or array.dtype.kind not in "buif":
            raise InputError.one(self.path, f"an array of {' x '.join(map(str, shape))} {array.dtype}", _EXPECTED)
        self.array = array
        self.height, self.width = map(int, sides)
        self.channels, self.dtype = int(samples), array.dtype

    def bands(self) -> Iterator[np.ndarray]:
        """Yield (rows, width, channels) arrays from top to bottom."""
        import numpy as np

        for top in range(0, self.height, _ROWS):
            rows = slice(top, min(top + _ROWS, self.height))
            try:
                part = self.array[:, rows] if self.first else self.array[rows]
            except OSError as error:
                raise InputError.one(
                    self.path, "an array that cannot be read", "a whole file", "Copy or download it again."
                ) from error
            part = np.moveaxis(part, 0, -1) if self.first else part
            yield part.reshape(part.shape[0], self.width, self.channels)
