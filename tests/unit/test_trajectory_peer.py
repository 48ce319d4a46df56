"""The sparse route against CellRank, where both run."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from test_trajectory_walk import fork

from histoweft.config import complete, load_schema
from histoweft.errors import InputError
from histoweft.graph.neighbours import neighbour_graph
from histoweft.trajectory import fit, kernels, peer, pseudotime
from histoweft.trajectory.cells import Cells


@pytest.fixture(scope="module")
def cellrank():
    return pytest.importorskip("cellrank")


@pytest.fixture(scope="module")
def forked():
    """Return cells of a fork; its marker is expressed at the beginning, and each cell knows its branch."""
    points, time, branch = fork(500, 3, seed=3)
    names = np.where(time < 0.5, "trunk", np.char.add("branch ", branch.astype(str))).astype(object)
    values = sp.csc_matrix(np.column_stack([np.clip(0.3 - time, 0, None), time]))
    barcodes = pd.Index([f"cell{i}" for i in range(500)])
    return Cells(barcodes, np.arange(500), points, values, pd.Index(["Early", "Late"]), np.ones(500), names)


@pytest.fixture(scope="module")
def annotated(forked):
    import anndata

    graph, distances = neighbour_graph(forked.points, 20)
    adata = anndata.AnnData(forked.points.copy())
    adata.obsp["connectivities"], adata.obsp["distances"] = graph.astype(float), distances
    adata.uns["neighbors"] = {"connectivities_key": "connectivities", "distances_key": "distances", "params": {}}
    adata.obs["time"] = np.random.default_rng(0).random(len(forked))
    return adata


def test_states_and_fates_equal_cellrank(cellrank, forked):
    changed = {"root": {"by": "gene", "value": "Early"}, "neighbours": 20, "labels": "labels"}
    options = complete({"study": "x", "trajectory": changed}, load_schema("config"))["trajectory"]
    ours, theirs = fit.fit(forked, options), fit.fit(forked, options | {"solver": "cellrank"})
    assert ours.fates.solver == "direct"
    assert theirs.fates.solver == "cellrank"
    assert sorted(theirs.names) == sorted(ours.names) == ["branch 0", "branch 1", "branch 2"]
    for name in ours.names:
        pair = [one.fates.probabilities[:, one.names.index(name)] for one in (ours, theirs)]
        assert np.corrcoef(*pair)[0, 1] > 0.99
    ends = np.full(len(forked), -1)
    for number, core in enumerate(ours.ends):
        ends[core] = number
    for solver in ("gmres", "direct"):
        found = peer.cellrank_fates(ours.transitions, ends, solver)
        np.testing.assert_allclose(found, ours.fates.probabilities, atol=1e-6)


def test_connectivity_and_pseudotime_kernels_equal_cellrank(cellrank, annotated):
    graph = sp.csr_matrix(annotated.obsp["connectivities"])
    loose = cellrank.kernels.ConnectivityKernel(annotated).compute_transition_matrix().transition_matrix
    np.testing.assert_allclose(kernels.connectivity_kernel(graph).toarray(), loose.toarray(), atol=1e-6)
    timed = cellrank.kernels.PseudotimeKernel(annotated, time_key="time")
    timed.compute_transition_matrix(
        threshold_scheme="hard", frac_to_keep=0.3, show_progress_bar=False, backend="threading"
    )
    ours = kernels.pseudotime_kernel(graph, annotated.obs["time"].to_numpy())
    # Neighbours of equal weight may be kept in another order.
    assert (np.abs(ours - timed.transition_matrix).max(axis=1).toarray() < 1e-6).mean() > 0.95


def test_velocity_kernel_equals_the_model_cell_by_cell(annotated):
    # CellRank's own velocity kernel does not run on current numpy: its deterministic model, written out.
    graph = sp.csr_matrix(annotated.obsp["connectivities"])
    state, velocity = annotated.X, np.random.default_rng(1).standard_normal(annotated.shape)
    ours = kernels.velocity_kernel(graph, state, velocity, block=77)
    around = [graph[cell].indices for cell in range(len(state))]
    along = [
        np.array([np.corrcoef(velocity[i], state[j] - state[i])[0, 1] for j in near]) for i, near in enumerate(around)
    ]
    scale = 1 / np.median(np.abs(np.concatenate(along)))
    for cell, (near, correlation) in enumerate(zip(around, along)):
        expected = np.exp(scale * correlation) / np.exp(scale * correlation).sum()
        np.testing.assert_allclose(ours[cell].toarray().ravel()[near], expected, atol=1e-4)


def test_cytotrace_equals_cellrank(cellrank):
    import anndata

    rng = np.random.default_rng(0)
    values = sp.csr_matrix(rng.random((200, 50)) * (rng.random((200, 50)) < rng.random(200)[:, None]))
    averaging = pseudotime.neighbour_weights(sp.random(200, 200, 0.05, random_state=0, format="csr"))
    adata = anndata.AnnData(values)
    adata.layers["Ms"] = (averaging @ values).toarray()
    adata.obsp["connectivities"] = adata.obsp["distances"] = sp.identity(200, format="csr")
    adata.uns["neighbors"] = {"connectivities_key": "connectivities", "distances_key": "distances", "params": {}}
    theirs = cellrank.kernels.CytoTRACEKernel(adata).compute_cytotrace(layer="Ms", n_genes=20)
    ours = pseudotime.cytotrace(values.tocsc(), np.diff(values.indptr), averaging, 20)
    np.testing.assert_allclose(1 - ours, theirs.pseudotime, atol=1e-5)


def test_cellrank_is_not_given_more_cells_than_dense_matrices_allow():
    peer.check_size(5_000, 5_000)
    with pytest.raises(InputError, match=r"(?s)solver: found cellrank for 60,000 cells.*28\.8 GB.*at most 5,000"):
        peer.check_size(60_000, 5_000)
