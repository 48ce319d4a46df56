"""Graph attention over the nearest cells in expression and, on tissue, over the nearest cells in space."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from histoweft.annotation import networks
from histoweft.annotation.models import Options, check_spatial
from histoweft.annotation.reference import Cells
from histoweft.annotation.space import Space
from histoweft.graph.neighbours import exact_neighbours

SPATIAL_NEIGHBOURS = 8
_WIDTH, _HEADS, _LAYERS, _DROPOUT = 64, 4, 2, 0.2
_STEPS_PER_EPOCH = 5
_LEARNING_RATE, _WEIGHT_DECAY = 5e-3, 1e-2
_ROWS = 8_192
_EXPLAINED_STEPS, _EXPLAINED_CELLS = 8, 2_000

_QUERY = "\0query"
"""Name of the section of cells that come without one: none of the reference's can be called so."""


class _Attention(nn.Module):
    """Attention of each cell to its neighbours, itself included.

    Notes
    -----
    GATv2 (Brody, Alon and Yahav 2022, ICLR): e = a . LeakyReLU(W_own h_i + W_other h_j), softmax over the neighbours j,
    then the mean of W_other h_j with these weights; heads side by side. Every cell has the same number of neighbours,
    so the edges are an array and gathering replaces scattering.
    """

    def __init__(self):
        super().__init__()
        self.own, self.other = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.score = nn.Parameter(torch.randn(_HEADS, _WIDTH // _HEADS) / (_WIDTH // _HEADS) ** 0.5)

    def forward(self, h: torch.Tensor, near: torch.Tensor, rows: slice) -> torch.Tensor:
        values = self.other(h)[near[rows]].unflatten(-1, (_HEADS, -1))
        own = self.own(h[rows]).unflatten(-1, (_HEADS, -1))
        weight = (F.leaky_relu(own[:, None] + values, 0.2) * self.score).sum(dim=-1).softmax(dim=1)
        return (F.dropout(weight, _DROPOUT, self.training)[..., None] * values).sum(dim=1).flatten(1)


class GraphNetwork(nn.Module):
    """Two layers of attention over one or two graphs, each added to what the cell itself says.

    Parameters
    ----------
    n_inputs, n_types
        Components of the space; outputs.
    n_graphs
        1, or 2 with the tissue.
    """

    def __init__(self, n_inputs: int, n_types: int, n_graphs: int):
        super().__init__()
        self.enter = nn.Linear(n_inputs, _WIDTH)
        self.attention = nn.ModuleList(nn.ModuleList(_Attention() for _ in range(n_graphs)) for _ in range(_LAYERS))
        self.join = nn.ModuleList(nn.Linear((1 + n_graphs) * _WIDTH, _WIDTH) for _ in range(_LAYERS))
        self.norm = nn.ModuleList(nn.LayerNorm(_WIDTH) for _ in range(_LAYERS))
        self.head = nn.Linear(_WIDTH, n_types)

    def forward(self, scores: torch.Tensor, *graphs: torch.Tensor) -> torch.Tensor:
        """Return logits, cells x types.

        Parameters
        ----------
        scores
            cells x components.
        graphs
            Each cells x neighbours: numbers of the cells that each one looks at, itself among them.
        """
        h = F.gelu(self.enter(F.dropout(scores, _DROPOUT / 2, self.training)))
        for attention, join, norm in zip(self.attention, self.join, self.norm):
            # A block of cells at a time: all edges at once would be the largest thing in memory.
            parts = [
                self._layer(h, graphs, rows, attention, join, norm)
                for rows in (slice(start, start + _ROWS) for start in range(0, len(h), _ROWS))
            ]
            h = torch.cat(parts)
        return self.head(F.dropout(h, _DROPOUT, self.training))

    @staticmethod
    def _layer(h, graphs, rows, attention, join, norm) -> torch.Tensor:
        seen = [one(h, near, rows) for one, near in zip(attention, graphs)]
        joined = F.gelu(join(torch.cat([h[rows], *seen], dim=1)))
        return norm(h[rows] + joined)


class _Nodes(nn.Module):
    """A `GraphNetwork` on a fixed graph, asked for the logits of some of its cells."""

    def __init__(self, network: GraphNetwork, scores: torch.Tensor, graphs: list[torch.Tensor]):
        super().__init__()
        self.network = network
        for name, value in (("scores", scores), *((f"graph{i}", graph) for i, graph in enumerate(graphs))):
            self.register_buffer(name, value, persistent=False)
        self._n = len(graphs)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.network(self.scores, *(getattr(self, f"graph{i}") for i in range(self._n)))[rows]


class Gnn:
    """`GraphNetwork` behind the interface of `models.Model`.

    The graph of training holds the reference; cells to be annotated join it without labels, so that one model serves
    every sample.

    Parameters
    ----------
    options
        Settings.
    """

    def __init__(self, options: Options):
        self._options = options

    def fit(self, cells: Cells, codes: np.ndarray, groups: np.ndarray | None, n_types: int, space: Space) -> Gnn:
        """Build the graph and train; see `models.Model.fit`."""
        self._cells = Cells(cells.scores, None, cells.xy if self._options.spatial else None, _sections(cells))
        self._space, self._n_types = space, n_types
        if self._options.spatial:
            check_spatial(cells.xy, "the reference")
        torch.manual_seed(self._options.seed)
        self._network = self._new_network()
        nodes = _Nodes(self._network, torch.from_numpy(cells.scores), self._graphs(self._cells))
        train, stop = networks.held_out(codes, groups, self._options.seed)
        batches = [[((torch.from_numpy(rows),), torch.from_numpy(codes[rows].astype(np.int64)))]
                   for rows in (train, stop)]  # fmt: skip
        networks.train_network(
            nodes, _STEPS_PER_EPOCH * batches[0], batches[1], codes[train], n_types, self._options,
            learning_rate=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY,
        )  # fmt: skip
        return self

    def _new_network(self) -> GraphNetwork:
        return GraphNetwork(self._cells.scores.shape[1], self._n_types, 1 + self._options.spatial)

    def _graphs(self, cells: Cells) -> list[torch.Tensor]:
        near = [exact_neighbours(cells.scores, min(self._options.neighbours + 1, len(cells)))[0]]
        if self._options.spatial:
            near.append(spatial_neighbours(cells.xy, cells.sections, SPATIAL_NEIGHBOURS))
        return [torch.from_numpy(one.astype(np.int64)) for one in near]

    def logits(self, cells: Cells) -> np.ndarray:
        """See `models.Model.logits`."""
        if self._options.spatial:
            check_spatial(cells.xy, "the sample")
        own, n = self._cells, len(self._cells)
        xy = np.concatenate([own.xy, cells.xy]) if self._options.spatial else None
        joined = Cells(
            np.concatenate([own.scores, cells.scores]), None, xy, np.concatenate([own.sections, _sections(cells)])
        )
        with torch.no_grad():
            found = self._network(torch.from_numpy(joined.scores), *self._graphs(joined))
        return found[n:].numpy()

    def gene_weights(self, cells: Cells, codes: np.ndarray) -> np.ndarray:
        """Integrated gradients of a type's logit along the path of all cells from the mean to where they lie.

        What a cell's neighbours contribute is counted with it. Components are carried back to genes; the mean logit
        over types is taken off.
        """
        rows = np.arange(len(cells))
        if len(rows) > _EXPLAINED_CELLS:
            rows = np.sort(np.random.default_rng(self._options.seed).permutation(rows)[:_EXPLAINED_CELLS])
        part = Cells(cells.scores[rows], None, None if cells.xy is None else cells.xy[rows], _sections(cells)[rows])
        gradients = self._path_gradients(part, codes[rows])
        X = cells.expression.matrix[rows][:, self._space.columns].tocsr()
        found = np.zeros((self._n_types, len(self._space.columns)))
        for code, gradient in gradients.items():
            # Sum over cells of gradient_gene x (value - mean), without a dense cells x genes matrix.
            weights = gradient.T @ X - np.outer(gradient.sum(axis=0), self._space.mean)
            found[code] = np.einsum("kg,gk->g", weights, self._space.axes) / self._space.unit
        return found

    def _path_gradients(self, cells: Cells, codes: np.ndarray) -> dict[int, np.ndarray]:
        """Return for each type the mean gradient along the path, cells x components, of its cells' mean logit."""
        graphs, scores = self._graphs(cells), torch.from_numpy(cells.scores)
        found = {int(code): np.zeros(cells.scores.shape) for code in np.unique(codes)}
        for step in range(_EXPLAINED_STEPS):
            x = (scores * ((step + 0.5) / _EXPLAINED_STEPS)).requires_grad_(True)
            logits = self._network(x, *graphs)
            logits = logits - logits.mean(dim=1, keepdim=True)
            for code, total in found.items():
                mine = torch.from_numpy(codes == code)
                (gradient,) = torch.autograd.grad(logits[mine, code].mean(), x, retain_graph=True)
                total += gradient.numpy() / _EXPLAINED_STEPS
        return found

    def state(self) -> dict[str, Any]:
        """See `models.Model.state`."""
        own = self._cells
        given = {"scores": own.scores, "n_types": self._n_types, "neighbours": self._options.neighbours}
        given |= {"spatial": self._options.spatial, "sections": own.sections.astype(str)}
        given |= {} if own.xy is None else {"xy": own.xy}
        return given | networks.to_arrays(self._network)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Gnn:
        """Return what `state` described."""
        model = cls(Options(neighbours=int(state["neighbours"]), spatial=bool(state["spatial"])))
        model._n_types = int(state["n_types"])
        model._cells = Cells(state["scores"], None, state.get("xy"), state["sections"])
        model._network = model._new_network()
        networks.from_arrays(model._network, state)
        return model


def _sections(cells: Cells) -> np.ndarray:
    return np.full(len(cells), _QUERY) if cells.sections is None else np.asarray(cells.sections).astype(str)


def spatial_neighbours(xy: np.ndarray, sections: np.ndarray, k: int) -> np.ndarray:
    """Find the nearest cells on the tissue, inside each section.

    Parameters
    ----------
    xy
        cells x 2.
    sections
        Section of each cell.
    k
        Neighbours, the cell itself not counted.

    Returns
    -------
    cells x (k + 1), int64, the cell itself first; where a section has fewer cells, it stands in for those missing.
    """
    from scipy.spatial import cKDTree

    near = np.repeat(np.arange(len(xy))[:, None], k + 1, axis=1)
    for section in np.unique(sections):
        rows = np.flatnonzero(sections == section)
        wanted = min(k + 1, len(rows))
        found = cKDTree(xy[rows]).query(xy[rows], k=[*range(1, wanted + 1)])[1]
        near[rows[:, None], np.arange(wanted)] = rows[found]
    # Of cells at one place either may come first.
    near[:, 0] = np.arange(len(xy))
    return near
