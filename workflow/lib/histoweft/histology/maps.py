"""From a trained model to maps: which genes, at which pixels, in which windows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histoweft.errors import Faults, NotComputed, nearest
from histoweft.histology import context
from histoweft.histology.spots import Section, standardise


def genes_to_paint(wanted: Sequence[str], panels: Sequence[Path], known: Sequence[str]) -> list[str]:
    """Choose the genes of the maps.

    Parameters
    ----------
    wanted
        Names from the config; empty for the marker panels.
    panels
        ``marker_panel.tsv`` of the samples.
    known
        Genes of the model.

    Raises
    ------
    InputError
        A wanted gene is not among those that all sections share.
    NotComputed
        No gene of the panels is.
    """
    if wanted:
        faults = Faults()
        for name in wanted:
            if name not in set(known):
                expected = f"one of the {len(known)} genes that all sections share"
                faults.add("histology.paint", repr(name), expected, nearest(name, known))
        faults.raise_if_any()
        return list(dict.fromkeys(wanted))
    named = [str(gene) for path in panels for gene in pd.read_csv(path, sep="\t")["gene"]]
    there = set(known)
    found = [gene for gene in dict.fromkeys(named) if gene in there]
    if not found:
        given = f"{len(named)} genes, none of them in all sections" if named else "no genes"
        raise NotComputed(
            f"the marker panels of the samples hold {given}, so there is none to paint", "histology.paint"
        )
    return found


@dataclass(frozen=True)
class Painter:
    """What `paint.paint` asks for.

    Attributes
    ----------
    model
        `network.Model`.
    pyramid
        Image features of the section.
    section
        Its spots: features are standardised as theirs.
    genes
        Column numbers of the model.
    device
        Of the networks.
    """

    model: Any
    pyramid: context.Context
    section: Section
    genes: np.ndarray
    device: str

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the maps."""
        return self.pyramid.shape

    @property
    def um_per_px(self) -> float:
        """Um per pixel of the maps."""
        return self.pyramid.grid_um

    def predict(self, rows: slice, cols: slice) -> np.ndarray:
        """Return genes x rows x columns, float32, of a window of the maps; 0 off the tissue."""
        features = self.pyramid.window(rows, cols)
        shape = features.shape[1:]
        inside = self.pyramid.edge[rows, cols].ravel() > 0
        x = features.reshape(len(features), -1).T[inside]
        x = standardise(x, self.section.centre, self.section.spread).astype(np.float32)
        found = np.zeros((len(self.genes), inside.size), dtype=np.float32)
        if len(x):
            found[:, inside] = self.model.expression(self.model.scores(x, self.device), self.genes).T
        return found.reshape(-1, *shape)

    def on_grid(self, image: np.ndarray) -> np.ndarray:
        """Average a working image, (h, w) bool or (h, w, 3) uint8, onto the maps' pixels."""
        factor = self.pyramid.levels[0].factor
        if image.dtype == bool:
            return context.mean_over(image, factor) > 0.5
        means = context.mean_over(np.moveaxis(image, -1, 0), factor)
        return np.moveaxis(means, 0, -1).round().astype(image.dtype) if factor > 1 else image


def painter(
    model: Any, section: Section, pyramid: str | os.PathLike, genes: Sequence[str], device: str = "cpu"
) -> Painter:
    """Put a model, a section and its image features together."""
    columns = pd.Index(model.genes).get_indexer(pd.Index(genes))
    return Painter(model, context.load(pyramid), section, columns, device)


@dataclass(frozen=True)
class Measured:
    """Measured expression of the painted genes.

    Attributes
    ----------
    xy_um
        Positions on the image, spots x 2, um from its corner.
    values
        spots x genes, log-normalised to the section's median total.
    spot_um
        Diameter of a spot, um.
    names
        Of all genes of the section.
    """

    xy_um: np.ndarray
    values: np.ndarray
    spot_um: float
    names: pd.Index

    def most_variable(self, genes: Sequence[str], n: int) -> list[str]:
        """Return the genes that vary most over the spots, in the order of `genes`."""
        best = np.argsort(-self.values.std(axis=0), kind="stable")[:n]
        return [genes[i] for i in sorted(best)]


def measured_expression(
    filtered: str | os.PathLike, genes: Sequence[str], footprint_um: float | None = None
) -> Measured:
    """Read the measured spots of a section for the painted genes."""
    from histoweft.histology.spots import footprint_of
    from histoweft.io import CountsFile
    from histoweft.normalise import normalise, row_sums

    with CountsFile(filtered) as file:
        about, counts, names = file.uns["histoweft"], file.matrix(), file.var_names
        at = file.obsm("spatial")[:, :2] * float(about["mpp"])
    totals = row_sums(counts)
    values = normalise(counts, float(np.median(totals)), totals)[:, names.get_indexer(pd.Index(genes))]
    return Measured(at, values.toarray(), footprint_of(about, str(filtered), footprint_um)[0], names)


def held_out_pearson(scores: str | os.PathLike | None, genes: Sequence[str], method: str) -> np.ndarray | None:
    """Read how well the method that painted a section predicts each gene in blocks it has not seen.

    Parameters
    ----------
    scores
        Of the section's blocks; None where it was not cut into blocks.
    genes
        Painted genes.
    method
        Name of the method.

    Returns
    -------
    (genes,), mean over the blocks of the correlation inside each, NaN where a gene was not scored; None without blocks.
    """
    from histoweft.histology.results import read_scores

    if not scores:
        return None
    folds, known = read_scores([scores])
    numbers = pd.Index(known).get_indexer(pd.Index(genes))
    each = [fold.tables[method]["pearson"].reindex(numbers) for fold in folds]
    return pd.concat(each, axis=1).mean(axis=1).to_numpy()


def composite_genes(maps: np.ndarray, mask: np.ndarray | None, measured: Measured, genes: Sequence[str]) -> list[int]:
    """Choose four genes whose maps differ most from one another, the most variable first.

    Returns
    -------
    list of int
        Numbers of the maps.
    """
    inside = maps[:, mask] if mask is not None else maps.reshape(len(maps), -1)
    inside = inside[:, :: max(1, inside.shape[1] // 50_000)]
    flat = inside.std(axis=1) < 1e-6
    with np.errstate(invalid="ignore", divide="ignore"):
        alike = np.nan_to_num(np.corrcoef(inside)) if len(inside) > 1 else np.ones((1, 1))
    spread = np.where(flat, 0, measured.values.std(axis=0))
    chosen = [int(np.argmax(spread))]
    while len(chosen) < min(4, len(genes)):
        worth = spread * (1 - alike[:, chosen].max(axis=1))
        worth[chosen] = -1
        chosen.append(int(np.argmax(worth)))
    return chosen
