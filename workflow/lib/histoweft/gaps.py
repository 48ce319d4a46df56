"""Results that are not there, and why: outputs in an empty form, each with its reason in a small file beside it.

A step that a sample's data cannot bear ends normally, with empty outputs. Steps that read them end in the same way,
unless they can do without; pages say the reason. In the second pass after a failure, a job that failed does the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

SUFFIX = ".not_computed.json"

PARTIAL = "HISTOWEFT_PARTIAL"
"""Set in the environment of the pass that makes pages after a failure."""


@dataclass(frozen=True)
class Gap:
    """Why a result is not there.

    Parameters
    ----------
    reason
        In words: the sample, what was found, what the step needs, and the option that says so.
    failed
        Whether a job failed; else the data cannot bear the step.
    """

    reason: str
    failed: bool = False

    @property
    def words(self) -> str:
        """Return the reason behind the word that says which kind of gap it is."""
        return f"{'Failed' if self.failed else 'Not computed'}: {self.reason}"


def beside(path: str | os.PathLike) -> Path:
    """Return where the reason of a missing result stands."""
    return Path(f"{path}{SUFFIX}")


def remember(path: str | os.PathLike, gap: Gap) -> None:
    """Keep the reason beside an output in its empty form."""
    beside(path).write_text(json.dumps(asdict(gap), indent=1), encoding="utf-8")


def forget(path: str | os.PathLike) -> None:
    """Take away the reason of an earlier run."""
    beside(path).unlink(missing_ok=True)


def of(path: str | os.PathLike) -> Gap | None:
    """Return why a result is not there; None where it is."""
    try:
        return Gap(**json.loads(beside(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def first(paths: Iterable[str | os.PathLike]) -> Gap | None:
    """Return the first gap among some files, a failure before others."""
    found = [gap for gap in map(of, paths) if gap]
    return min(found, key=lambda gap: not gap.failed, default=None)


def clear_failed(folder: str | os.PathLike) -> None:
    """Remove the empty forms that stand for failed jobs, so that the next run makes them."""
    import shutil

    for mark in Path(folder).rglob(f"*{SUFFIX}"):
        result = Path(str(mark).removesuffix(SUFFIX))
        if of(result).failed:
            shutil.rmtree(result) if result.is_dir() else result.unlink(missing_ok=True)
            mark.unlink()


# ---------------------------------------------------------------------------------------------------- empty forms


def write_empty(path: str | os.PathLike, name: str, gap: Gap) -> None:
    """Write the empty form of an output: a valid file of its kind without content, a picture that states the reason.

    Parameters
    ----------
    path
        Where to.
    name
        The output's final name, which tells its kind.
    gap
        Why.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = _WRITERS.get(Path(name).suffix)
    if writer:
        writer(path, gap)
    elif Path(name).suffix:
        path.write_text(gap.words + "\n", encoding="utf-8")
    else:
        _folder(path, gap)


def _folder(path: Path, gap: Gap) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "not_computed.txt").write_text(gap.words + "\n", encoding="utf-8")


def _table(path: Path, gap: Gap) -> None:
    path.write_text("not_computed\n", encoding="utf-8")


def _json(path: Path, gap: Gap) -> None:
    said = {"not_computed": gap.words, "texts": [], "warnings": [gap.words] if gap.failed else []}
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def _parquet(path: Path, gap: Gap) -> None:
    import pandas as pd

    pd.DataFrame(index=pd.Index([], name="barcode", dtype=str)).to_parquet(path)


def _h5ad(path: Path, gap: Gap) -> None:
    import anndata
    import numpy as np

    with open(path, "wb"):
        pass
    anndata.AnnData(np.zeros((0, 0), np.float32), uns={"not_computed": gap.words}).write_h5ad(path)


def _arrays(path: Path, gap: Gap) -> None:
    import numpy as np

    with open(path, "wb") as stream:
        np.savez(stream)


def _notebook(path: Path, gap: Gap) -> None:
    cell = {"cell_type": "markdown", "id": "reason", "metadata": {}, "source": gap.words}
    book = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(book, indent=1), encoding="utf-8")


def _html(path: Path, gap: Gap) -> None:
    from html import escape

    page = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Not computed</title><p>{escape(gap.words)}</p>"
    path.write_text(page + "</html>\n", encoding="utf-8")


def _picture(path: Path, gap: Gap) -> None:
    # with Pillow, as every step's environment has it, the plotting package not
    import textwrap

    from PIL import Image, ImageDraw, ImageFont

    lines = textwrap.wrap(gap.words[:400], 64)
    picture = Image.new("RGB", (760, 60 + 30 * len(lines)), "white")
    ImageDraw.Draw(picture).multiline_text((30, 28), "\n".join(lines), "#595959", ImageFont.load_default(22), spacing=8)
    picture.save(path, format="PNG")


_WRITERS = {
    ".tsv": _table,
    ".json": _json,
    ".jsonld": _json,
    ".parquet": _parquet,
    ".h5ad": _h5ad,
    ".npz": _arrays,
    ".ipynb": _notebook,
    ".html": _html,
    ".png": _picture,
    ".zarr": _folder,
}
