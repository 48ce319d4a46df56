"""A transformer over gene sets: each set of genes becomes a token, a class token attends to them and is classified."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from histoweft.annotation import gene_sets, networks
from histoweft.annotation.gene_sets import Tokens
from histoweft.annotation.models import Options
from histoweft.annotation.reference import Cells
from histoweft.annotation.space import Space

_WIDTH, _HEADS, _LAYERS, _DROPOUT = 32, 4, 2, 0.1
_GENE_DROPOUT = 0.2
_BATCH = 128
_STEPS_PER_EPOCH = 12
"""At least: an epoch of a small reference goes through it several times."""
_LEARNING_RATE, _WEIGHT_DECAY = 1e-3, 0.05
_EXPLAINED_CELLS, _EXPLAINED_STEPS = 40, 16


class _Block(nn.Module):
    """Self-attention and a feed-forward layer, each normalised first; the attention of the class token is kept."""

    def __init__(self):
        super().__init__()
        self.before, self.between = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.mix, self.out = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.wide, self.narrow = nn.Linear(_WIDTH, 2 * _WIDTH), nn.Linear(2 * _WIDTH, _WIDTH)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cells, tokens, _ = x.shape
        query, key, value = self.mix(self.before(x)).view(cells, tokens, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(dim=-1)
        mixed = (F.dropout(attention, _DROPOUT, self.training) @ value).transpose(1, 2).flatten(2)
        x = x + F.dropout(self.out(mixed), _DROPOUT, self.training)
        x = x + F.dropout(self.narrow(F.gelu(self.wide(self.between(x)))), _DROPOUT, self.training)
        return x, attention[:, :, 0].mean(dim=1)


class GeneSetNetwork(nn.Module):
    """Masked linear maps from genes to tokens, attention over tokens, a linear head on the class token.

    Parameters
    ----------
    tokens
        Gene sets.
    n_types
        Outputs.

    Notes
    -----
    A token sees the genes of its set only, so that attention to it can be read (as in TOSICA, Chen et al. 2023, Nature
    Communications 14:223, whose maps are dense and masked; here each set's genes are gathered, which costs less).
    """

    def __init__(self, tokens: Tokens, n_types: int):
        super().__init__()
        sets, width = tokens.genes.shape
        self.register_buffer("genes", torch.from_numpy(tokens.genes), persistent=False)
        self.register_buffer("member", torch.from_numpy(tokens.member.astype(np.float32)), persistent=False)
        sizes = tokens.member.sum(axis=1)[:, None, None]
        self.maps = nn.Parameter(torch.randn(sets, width, _WIDTH) / torch.from_numpy(np.sqrt(sizes)).float())
        self.names = nn.Parameter(0.5 * torch.randn(sets, _WIDTH))
        self.class_token = nn.Parameter(0.5 * torch.randn(_WIDTH))
        self.blocks = nn.ModuleList(_Block() for _ in range(_LAYERS))
        self.head = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, n_types))

    def attend(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits, cells x types, and the class token's attention to the sets in the last layer, cells x sets."""
        x = F.dropout(x, _GENE_DROPOUT, self.training)
        tokens = torch.einsum("cij,ijd->cid", x[:, self.genes] * self.member, self.maps) + self.names
        x = torch.cat([self.class_token.expand(len(x), 1, -1), tokens], dim=1)
        for block in self.blocks:
            x, attention = block(x)
        return self.head(x[:, 0]), attention[:, 1:]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of cells x used genes."""
        return self.attend(x)[0]


class _Batches:
    """Rows of a sparse matrix, made dense a batch at a time; for training in random order, as often as it takes."""

    def __init__(self, model: Transformer, X: sp.csr_matrix, codes: np.ndarray, training: bool):
        self._model, self._X, self._codes = model, X, codes
        self._parts = math.ceil(len(codes) / _BATCH)
        self._passes = math.ceil(_STEPS_PER_EPOCH / self._parts) if training else 0

    def __len__(self) -> int:
        return self._parts * max(self._passes, 1)

    def __iter__(self) -> Iterator[tuple[tuple[torch.Tensor], torch.Tensor]]:
        n = len(self._codes)
        orders = [torch.randperm(n).numpy() for _ in range(self._passes)] or [np.arange(n)]
        for rows in (part for order in orders for part in np.array_split(order, self._parts)):
            yield (self._model.standardise(self._X[rows]),), torch.from_numpy(self._codes[rows].astype(np.int64))


class Transformer:
    """`GeneSetNetwork` behind the interface of `models.Model`.

    Parameters
    ----------
    genes
        Names of the shared genes.
    options
        Settings.
    """

    def __init__(self, genes: np.ndarray, options: Options):
        self._genes, self._options = genes, options

    def fit(
        self, cells: Cells, codes: np.ndarray, groups: np.ndarray | None, n_types: int, space: Space
    ) -> Transformer:
        """Choose tokens and train; see `models.Model.fit`."""
        X = cells.expression.matrix[:, space.columns].tocsr()
        self._columns, names = space.columns, self._genes[space.columns]
        mean, squares = (np.asarray(part.mean(axis=0), dtype=np.float64).ravel() for part in (X, X.multiply(X)))
        self._mean = mean.astype(np.float32)
        self._spread = (np.sqrt(np.maximum(squares - mean**2, 0)) + 0.1).astype(np.float32)
        if self._options.gene_sets is None:
            self.tokens = gene_sets.learned_tokens(space, cells.scores, names, self._options.seed)
        else:
            self.tokens = gene_sets.given_tokens(self._options.gene_sets, names)
        self._n_types = n_types
        torch.manual_seed(self._options.seed)
        self._network = GeneSetNetwork(self.tokens, n_types)
        train, stop = networks.held_out(codes, groups, self._options.seed)
        networks.train_network(
            self._network, _Batches(self, X[train], codes[train], True), _Batches(self, X[stop], codes[stop], False),
            codes[train], n_types, self._options, learning_rate=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY,
        )  # fmt: skip
        return self

    def standardise(self, X: sp.csr_matrix) -> torch.Tensor:
        """Return some cells' used genes, dense, as the network takes them."""
        return torch.from_numpy((X.toarray() - self._mean) / self._spread)

    def logits(self, cells: Cells) -> np.ndarray:
        """See `models.Model.logits`."""
        found = np.zeros((len(cells), self._n_types), dtype=np.float32)
        with torch.no_grad():
            for rows, block in cells.expression.blocks():
                block = block[:, self._columns].tocsr()
                for start in range(0, block.shape[0], 8 * _BATCH):
                    part = self._network(self.standardise(block[start : start + 8 * _BATCH]))
                    found[rows.start + start : rows.start + start + len(part)] = part.numpy()
        return found

    def gene_weights(self, cells: Cells, codes: np.ndarray) -> np.ndarray:
        """Integrated gradients (Sundararajan et al. 2017, ICML) of a type's logit, mean over cells of the type.

        The path starts at the mean expression of all cells; the mean logit over types is taken off, so that what
        raises all of them counts for none.
        """
        from captum.attr import IntegratedGradients

        def centred(x: torch.Tensor) -> torch.Tensor:
            logits = self._network(x)
            return logits - logits.mean(dim=1, keepdim=True)

        attribution = IntegratedGradients(centred)
        found = np.zeros((self._n_types, len(self._columns)))
        X = cells.expression.matrix[:, self._columns].tocsr()
        for code, rows in _examples(codes, self._options.seed):
            x = self.standardise(X[rows])
            given = attribution.attribute(x, target=int(code), n_steps=_EXPLAINED_STEPS, internal_batch_size=8 * _BATCH)
            found[code] = given.mean(dim=0).numpy()
        return found

    def attention(self, cells: Cells, codes: np.ndarray) -> np.ndarray:
        """Return how much the class token looks at each gene set, types x sets, mean over cells of the type."""
        found = np.zeros((self._n_types, len(self.tokens.names)))
        X = cells.expression.matrix[:, self._columns].tocsr()
        with torch.no_grad():
            for code, rows in _examples(codes, self._options.seed):
                found[code] = self._network.attend(self.standardise(X[rows]))[1].mean(dim=0).numpy()
        return found

    def state(self) -> dict[str, Any]:
        """See `models.Model.state`."""
        tokens = {"set_genes": self.tokens.genes, "set_member": self.tokens.member, "set_names": self.tokens.names}
        return {
            "columns": self._columns, "mean": self._mean, "spread": self._spread, "n_types": self._n_types,
            **tokens, **networks.to_arrays(self._network),
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Transformer:
        """Return what `state` described."""
        model = cls(np.zeros(0), Options())
        model._columns, model._mean, model._spread = state["columns"], state["mean"], state["spread"]
        model._n_types = int(state["n_types"])
        model.tokens = Tokens(state["set_names"], state["set_genes"], state["set_member"])
        model._network = GeneSetNetwork(model.tokens, model._n_types)
        networks.from_arrays(model._network, state)
        return model


def _examples(codes: np.ndarray, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each type that has cells, and some of its cells."""
    rng = np.random.default_rng(seed)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        yield code, np.sort(rng.permutation(rows)[:_EXPLAINED_CELLS])
