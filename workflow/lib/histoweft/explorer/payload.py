"""Arrays and objects as small scripts that the page loads when it needs them."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

LEVEL = 6
"""Strength of the compression (zlib); 9 saves 1 % and takes three times as long."""

MISSING = {np.dtype(np.uint8): 0xFF, np.dtype(np.uint16): 0xFFFF}
"""What stands for a missing value in codes and quantised numbers."""


def pack(array: np.ndarray) -> dict[str, Any]:
    """Return an array as the page's `unpack` takes it: its type and its bytes, compressed, as text.

    Parameters
    ----------
    array
        uint8, uint16 or float32, any shape; rows one after the other.
    """
    if array.dtype.name not in ("uint8", "uint16", "float32"):
        raise TypeError(f"the page does not know arrays of {array.dtype}")
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return {"type": array.dtype.name, "data": base64.b64encode(zlib.compress(little.tobytes(), LEVEL)).decode()}


def pack_text(lines: list[str]) -> dict[str, Any]:
    """Return names as one packed text, a name a line."""
    return pack(np.frombuffer("\n".join(lines).encode("utf-8"), dtype=np.uint8))


def write(folder: Path, key: str, value: Any) -> None:
    """Write the script that hands over one object.

    Parameters
    ----------
    folder
        Where to.
    key
        ``<sample>/<piece>``; the file is ``<piece>.js``.
    value
        JSON. Numbers that are not finite are refused: JSON has none.
    """
    name = key.rpartition("/")[2]
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    (folder / f"{name}.js").write_text(f"explorerData({json.dumps(key)},{text});\n", encoding="utf-8")


def quantise(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Spread numbers over 16 bits.

    Parameters
    ----------
    values
        Numbers; those that are not finite become `MISSING`.

    Returns
    -------
    codes
        uint16; 0 is `low`, 65,534 is `high`.
    low, high
        Smallest and largest finite value; 0 and 1 where there is none.
    """
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    codes = np.full(values.shape, MISSING[np.dtype(np.uint16)], dtype=np.uint16)
    if not finite.any():
        return codes, 0.0, 1.0
    low, high = float(values[finite].min()), float(values[finite].max())
    step = (high - low) / 65_534 or 1.0
    codes[finite] = np.rint((values[finite] - low) / step)
    return codes, low, high
