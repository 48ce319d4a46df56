"""Pseudotime, kernels, macrostates and fate probabilities against other computations and planted truth."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import HistoweftError, InputError
from histoweft.graph.neighbours import neighbour_graph
from histoweft.trajectory import absorption, kernels, pseudotime, spectrum, terminal
from histoweft.trajectory.cells import Cells


def fork(n=600, branches=3, seed=0, noise=0.15):
    """Return points along a trunk that forks, true pseudotime and branch."""
    rng = np.random.default_rng(seed)
    time, branch = rng.random(n), rng.integers(0, branches, n)
    points = np.zeros((n, branches + 2))
    points[:, 0] = 10 * np.minimum(time, 0.5)
    points[np.arange(n), 1 + branch] = 10 * np.clip(time - 0.5, 0, None)
    return (points + noise * rng.standard_normal(points.shape)).astype(np.float32), time, branch


@pytest.fixture(scope="module")
def forked():
    points, time, branch = fork()
    graph, _ = neighbour_graph(points, 20)
    diffusion = pseudotime.diffuse(graph)
    order = pseudotime.diffusion_pseudotime(diffusion, int(time.argmin()))
    made = {"pseudotime": kernels.pseudotime_kernel(graph, order), "connectivity": kernels.connectivity_kernel(graph)}
    walk = kernels.combine(made, {"pseudotime": 0.8, "connectivity": 0.2})
    return {"points": points, "time": time, "branch": branch, "graph": graph, "order": order, "walk": walk}


def random_walk(n=40, seed=0):
    rng = np.random.default_rng(seed)
    matrix = rng.random((n, n)) * (rng.random((n, n)) < 0.3)
    matrix[np.arange(n), (np.arange(n) + 1) % n] += 0.1
    return sp.csr_matrix(matrix / matrix.sum(axis=1, keepdims=True))


# ------------------------------------------------------------------------------------------------------ pseudotime


def test_diffusion_pseudotime_equals_scanpy(forked):
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(forked["points"])
    adata.obsp["connectivities"] = forked["graph"]
    adata.obsp["distances"] = forked["graph"]
    adata.uns["neighbors"] = {
        "connectivities_key": "connectivities",
        "distances_key": "distances",
        "params": {"n_neighbors": 20, "method": "umap"},
    }
    adata.uns["iroot"] = int(forked["time"].argmin())
    sc.tl.diffmap(adata, n_comps=15)
    sc.tl.dpt(adata, n_dcs=15)
    np.testing.assert_allclose(forked["order"], adata.obs["dpt_pseudotime"], atol=2e-3)
    assert np.corrcoef(forked["order"], adata.obs["dpt_pseudotime"])[0, 1] > 0.9999


def test_pseudotime_follows_the_planted_order(forked):
    from scipy.stats import spearmanr

    assert spearmanr(forked["order"], forked["time"]).statistic > 0.97


def test_cells_off_the_root_s_component_have_no_pseudotime():
    points, time, _ = fork(200)
    far = np.concatenate([points, points[:60] + 1_000])
    graph, _ = neighbour_graph(far, 10)
    order = pseudotime.diffusion_pseudotime(pseudotime.diffuse(graph), int(time.argmin()))
    assert np.isnan(order[200:]).all()
    assert np.isfinite(order[:200]).all()
    assert order[:200].max() == 1


def test_sparse_correlation_equals_numpy():
    rng = np.random.default_rng(0)
    values = rng.random((50, 8)) * (rng.random((50, 8)) < 0.4)
    values[:, 3] = 0
    other = rng.random((50, 2))
    found = pseudotime.correlate(sp.csc_matrix(values), other)
    kept = [0, 1, 2, 4, 5, 6, 7]
    expected = np.corrcoef(values[:, kept].T, other.T)[:7, 7:]
    np.testing.assert_allclose(found[kept], expected, atol=1e-10)
    assert np.isnan(found[3]).all()


def cells_of(points, labels=None, genes=("A", "B"), values=None):
    n = len(points)
    values = sp.csc_matrix((n, len(genes))) if values is None else sp.csc_matrix(values)
    labels = np.full(n, "", dtype=object) if labels is None else labels
    barcodes = pd.Index([f"cell{i}" for i in range(n)])
    return Cells(barcodes, np.arange(n), points, values, pd.Index(genes), np.ones(n), labels)


def test_roots(forked):
    time = forked["time"]
    diffusion = pseudotime.diffuse(forked["graph"])
    averaging = pseudotime.neighbour_weights(forked["graph"])
    labels = np.where(time < 0.3, "young", "old").astype(object)
    values = np.column_stack([np.clip(0.3 - time, 0, None), np.clip(time - 0.8, 0, None)])
    cells = cells_of(forked["points"], labels, values=values)

    def root(by, value):
        return time[pseudotime.find_root(cells, {"by": by, "value": value}, 1 - time, diffusion, averaging)]

    assert root("cytotrace", "") < 0.05
    assert root("gene", "A") < 0.1
    assert root("gene", ["A"]) == root("gene", "A")
    assert root("gene", "B") > 0.85
    assert root("label", "young") < 0.1
    assert root("barcode", "cell7") == time[7]


@pytest.mark.parametrize(
    ("by", "value", "said"),
    [("barcode", "cell_7", "a barcode"), ("gene", ["A", "C"], "a variable gene"), ("label", "yung", "Did you mean")],
)
def test_an_unknown_root_is_an_error(forked, by, value, said):
    labels = np.full(600, "young", dtype=object)
    cells = cells_of(forked["points"], labels)
    with pytest.raises(InputError, match=r"trajectory.root.value") as caught:
        pseudotime.find_root(cells, {"by": by, "value": value}, np.zeros(600), None, None)
    assert said in str(caught.value)


def test_cytotrace_falls_with_the_genes_detected(forked):
    rng = np.random.default_rng(1)
    time = forked["time"]
    counts = (rng.random((600, 80)) < (0.9 - 0.7 * time)[:, None]) * rng.random((600, 80))
    averaging = pseudotime.neighbour_weights(forked["graph"])
    score = pseudotime.cytotrace(sp.csc_matrix(counts), (counts > 0).sum(axis=1), averaging)
    assert score.min() == 0
    assert score.max() == 1
    assert np.corrcoef(score, time)[0, 1] < -0.95


# --------------------------------------------------------------------------------------------------------- kernels


def test_rows_sum_to_one_and_lost_cells_stay(forked):
    lonely = sp.csr_matrix(np.array([[0, 1.0, 0], [1, 0, 0], [0, 0, 0]]))
    np.testing.assert_allclose(kernels.row_normalise(lonely).toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(np.asarray(forked["walk"].sum(axis=1)).ravel(), 1)


def test_pseudotime_kernel_row_by_row(forked):
    graph, time = forked["graph"], forked["order"]
    walk = kernels.pseudotime_kernel(graph, time).toarray()
    for cell in range(0, 600, 37):
        weights = graph[cell].toarray().ravel()
        near = np.flatnonzero(weights)
        kept = near[np.argsort(-weights[near], kind="stable")][: int(0.3 * len(near))]
        expected = np.where(time >= time[cell], weights, 0)
        expected[kept] = weights[kept]
        np.testing.assert_allclose(walk[cell], expected / expected.sum(), atol=1e-6)


def test_a_cell_with_its_whole_neighbourhood_in_the_past_still_moves():
    graph = sp.csr_matrix(np.array([[0, 0.5, 0.2], [0.5, 0, 0.9], [0.2, 0.9, 0]]))
    walk = kernels.pseudotime_kernel(graph, np.array([0.0, 0.1, 0.9]))
    np.testing.assert_allclose(walk[2].toarray().ravel(), [0, 1, 0])


def test_velocity_kernel_points_where_the_velocity_points(forked):
    points, time, branch = forked["points"], forked["time"], forked["branch"]
    velocity = np.zeros_like(points)
    trunk = time < 0.5
    velocity[trunk, 0] = 1
    velocity[np.flatnonzero(~trunk), 1 + branch[~trunk]] = 1
    velocity[0] = 0
    walk = kernels.velocity_kernel(forked["graph"], points, velocity, block=100)
    gain = walk @ time - time
    assert (gain[(time > 0.05) & (time < 0.95)] > 0).mean() > 0.8
    near = forked["graph"][0].indices
    np.testing.assert_allclose(walk[0].toarray().ravel()[near], 1 / len(near))


def test_combination_scales_weights_and_refuses_none(forked):
    a, b = random_walk(seed=1), random_walk(seed=2)
    mixed = kernels.combine({"pseudotime": a, "velocity": b}, {"pseudotime": 3, "velocity": 1, "cytotrace": 0})
    np.testing.assert_allclose(mixed.toarray(), 0.75 * a.toarray() + 0.25 * b.toarray(), atol=1e-12)
    with pytest.raises(InputError, match=r"trajectory\.kernels.*a weight above 0"):
        kernels.combine({}, {"pseudotime": 0})


# ---------------------------------------------------------------------------------------------------- macrostates


def test_subspace_is_invariant_orthonormal_and_begins_with_the_constant(forked):
    walk = forked["walk"]
    found = spectrum.slow_subspace(walk, 6)
    x, n = found.vectors, walk.shape[0]
    np.testing.assert_allclose(x[:, 0], 1, atol=1e-8)
    np.testing.assert_allclose(x.T @ x / n, np.eye(x.shape[1]), atol=1e-8)
    moved = walk @ x
    np.testing.assert_allclose(moved, x @ (x.T @ moved / n), atol=1e-6)
    exact = np.sort(np.linalg.eigvals(walk.toarray()).real)[::-1][: len(found.values)]
    np.testing.assert_allclose(np.sort(found.values.real)[::-1], exact, atol=1e-6)


def test_a_conjugate_pair_is_not_torn():
    # A ring walked one way has complex eigenvalues.
    n = 60
    ring = sp.csr_matrix((np.r_[np.full(n, 0.9), np.full(n, 0.1)], (np.r_[:n, :n], np.r_[np.arange(1, n), 0, :n])))
    found = spectrum.slow_subspace(ring, 4)
    assert len(found.values) == 5
    assert found.values[1] == found.values[2].conjugate()
    assert found.values[1].imag > 0
    assert [found.whole(m) for m in (1, 2, 3, 4, 5)] == [1, 3, 3, 5, 5]
    moved = ring @ found.vectors
    np.testing.assert_allclose(moved, found.vectors @ (found.vectors.T @ moved / n), atol=1e-6)


def test_small_walks_are_decomposed_whole():
    found = spectrum.slow_subspace(random_walk(20), 5)
    assert found.vectors.shape[0] == 20
    assert abs(found.values[0] - 1) < 1e-10
    with pytest.raises(HistoweftError, match="too few"):
        spectrum.slow_subspace(sp.identity(3, format="csr"), 2)


def test_memberships_find_planted_blocks():
    rng = np.random.default_rng(0)
    block = np.repeat([0, 1, 2, 3], 50)
    weights = np.where(block[:, None] == block, 1.0, 0.002) * rng.uniform(0.5, 1, (200, 200))
    walk = kernels.row_normalise(sp.csr_matrix(weights))
    subspace = spectrum.slow_subspace(walk, 5)
    states = spectrum.macrostates(walk, subspace, 4)
    np.testing.assert_allclose(states.memberships.sum(axis=1), 1)
    assert states.memberships.min() >= 0
    assert states.crispness > 0.95
    assert pd.crosstab(block, states.memberships.argmax(axis=1)).to_numpy().max(axis=1).tolist() == [50] * 4
    expected = [walk[block == b][:, block == b].sum() / 50 for b in range(4)]
    np.testing.assert_allclose(np.sort(states.stability), np.sort(expected), atol=0.02)


def test_memberships_are_as_crisp_as_pygpcca(forked):
    from pygpcca._gpcca import _gpcca_core

    vectors = spectrum.slow_subspace(forked["walk"], 5).vectors[:, :4]
    ours, crispness = spectrum.memberships(vectors)
    theirs, _, peer = _gpcca_core(vectors)
    assert crispness > peer - 0.01
    best = np.corrcoef(ours.T, theirs.T)[:4, 4:]
    assert best.max(axis=1).min() > 0.99


def test_outline_of_many_cells_bounds_the_same_memberships(forked, monkeypatch):
    vectors = spectrum.slow_subspace(forked["walk"], 4).vectors[:, :4]
    whole, crispness = spectrum.memberships(vectors)
    monkeypatch.setattr(spectrum, "_CORNERS", 400)
    part, almost = spectrum.memberships(vectors)
    assert abs(crispness - almost) < 0.02
    assert part.min() >= 0
    np.testing.assert_allclose(whole, part, atol=0.05)


def test_slow_modes_are_counted():
    values = np.array([1, 0.99, 0.95, 0.94, 0.931, 0.92, 0.5])
    assert spectrum.count_slow(values) == 5
    assert spectrum.count_slow(values[[0, 5, 6, 6, 6]]) == spectrum.FEWEST
    assert spectrum.count_slow(values[:3]) == 3


# --------------------------------------------------------------------------------------------------- terminal states


def test_ends_of_a_fork_are_found_without_labels(forked):
    subspace = spectrum.slow_subspace(forked["walk"], 8)
    states = spectrum.macrostates(forked["walk"], subspace, 6)
    blank = np.full(600, "", dtype=object)
    table, cores = terminal.terminal_states(
        forked["walk"], states.memberships, states.stability, forked["order"], blank, None, 20
    )
    ends = [cores[row] for row in np.flatnonzero(table["terminal"])]
    assert sorted(np.bincount(forked["branch"][core]).argmax() for core in ends) == [0, 1, 2]
    assert all(forked["time"][core].mean() > 0.85 for core in ends)
    assert len(np.unique(np.concatenate(cores))) == sum(map(len, cores))
    assert table["state"].str.fullmatch(r"state \d+").all()
    assert table["purity"].isna().all()
    # Asking for two keeps the two that hold the walk longest.
    two, _ = terminal.terminal_states(
        forked["walk"], states.memberships, states.stability, forked["order"], blank, 2, 20
    )
    assert two["terminal"].sum() == 2
    assert two.loc[two["terminal"], "retention"].min() >= two.loc[~two["terminal"] & two["late"], "retention"].max()


def test_retention_equals_powers_of_the_walk():
    walk = random_walk()
    power = np.linalg.matrix_power(walk.toarray(), 4)
    cores = [np.array([0, 3, 5]), np.array([7])]
    expected = [power[np.ix_(core, core)].sum() / len(core) for core in cores]
    np.testing.assert_allclose(terminal.retention(walk, cores, 4), expected)


def test_walks_that_return_equal_a_chain_with_one_core_opened(forked):
    ends = np.full(600, -1)
    for fate in range(3):
        tip = np.flatnonzero(forked["branch"] == fate)
        ends[tip[np.argsort(-forked["time"][tip])[:8]]] = fate
    fates = dense_fates(forked["walk"], ends, 3)
    cores = [np.flatnonzero(ends == fate) for fate in range(3)]
    found = terminal.returning(forked["walk"], cores, fates)
    dense = forked["walk"].toarray()
    for fate, core in enumerate(cores):
        out = dense[core].copy()
        out[:, core] = 0
        assert found[fate] == pytest.approx((out @ fates[:, fate]).sum() / out.sum())
    assert found.min() > 0.9
    # A core in the middle of a branch loses its walks to the tip.
    middle = np.flatnonzero((forked["branch"] == 0) & (np.abs(forked["time"] - 0.7) < 0.05))
    ends[middle] = 3
    found = terminal.returning(forked["walk"], [*cores, middle], dense_fates(forked["walk"], ends, 4))
    assert found[3] < found[:3].min()


def test_names_come_from_the_majority_and_stay_apart():
    labels = np.array(["a", "a", "b", "b", "b", "a", "", ""], dtype=object)
    found = terminal.name_states([np.array([0, 1, 2]), np.array([5, 0]), np.array([6, 7])], labels, "cluster ")
    assert found["state"].tolist() == ["cluster a", "cluster a 2", "state 3"]
    assert found["label"].tolist() == ["a", "a", ""]
    np.testing.assert_allclose(found["purity"], [2 / 3, 1, np.nan])


def test_states_of_one_core_are_told_once():
    walk = random_walk(60)
    memberships = np.random.default_rng(0).random((60, 2))
    kept, cores = terminal.different_cores(memberships[:, [0, 1, 0]], 10, walk)
    assert sorted(kept.tolist()) in ([0, 1], [1, 2])
    assert len(cores) == 2


def test_a_part_that_the_root_does_not_lead_to_is_no_end(forked):
    apart = sp.block_diag([forked["walk"], sp.csr_matrix(np.full((40, 40), 1 / 40))], format="csr")
    order = np.concatenate([forked["order"], np.full(40, np.nan)])
    subspace = spectrum.slow_subspace(apart, 8)
    states = spectrum.macrostates(apart, subspace, 7)
    table, cores = terminal.terminal_states(
        apart, states.memberships, states.stability, order, np.full(640, "", dtype=object), None, 20
    )
    lost = [row for row, core in enumerate(cores) if (core >= 600).all()]
    assert len(lost) == 1
    assert table.loc[lost, "pseudotime"].isna().all()
    assert not table.loc[lost, ["late", "terminal"]].any(axis=None)
    assert table["terminal"].sum() >= 2


def test_core_size():
    assert terminal.core_size(10_000, 30) == 30
    assert terminal.core_size(200, 30) == 10
    assert terminal.core_size(40, 30) == 5


def three_states(wanted):
    walk = kernels.row_normalise(
        sp.block_diag([np.ones((40, 40))] * 3).tocsr() + 0.001 * sp.csr_matrix(np.ones((120, 120)))
    )
    memberships = np.kron(np.eye(3), np.ones((40, 1)))
    labels = np.repeat(["x", "y", "z"], 40).astype(object)
    return terminal.terminal_states(walk, memberships, np.ones(3), np.linspace(0, 1, 120), labels, wanted, 30)[0]


def test_named_and_impossible_ends():
    named = three_states(["x", "z"]).set_index("state")
    assert named.loc[["x", "z"], "terminal"].all()
    assert not named.loc["y", "terminal"]
    with pytest.raises(InputError, match=r"(?s)'w'.*labels of macrostates.*'q'"):
        three_states(["w", "x", "q"])
    with pytest.raises(InputError, match="2 terminal states, where 1 of 3 macrostates lie in the later half"):
        three_states(2)


# ------------------------------------------------------------------------------------------------ fate probabilities


def dense_fates(walk, ends, k):
    inner = np.flatnonzero(ends < 0)
    dense = walk.toarray()
    into = np.column_stack([dense[inner][:, ends == fate].sum(axis=1) for fate in range(k)])
    found = np.zeros((len(ends), k))
    found[inner] = np.linalg.solve(np.eye(len(inner)) - dense[np.ix_(inner, inner)], into)
    found[ends >= 0] = np.eye(k)[ends[ends >= 0]]
    return found


@pytest.mark.parametrize("solver", ["direct", "iterative"])
def test_fates_equal_a_dense_solution(forked, solver):
    ends = np.full(600, -1)
    for fate in range(3):
        tip = np.flatnonzero(forked["branch"] == fate)
        ends[tip[np.argsort(-forked["time"][tip])[:8]]] = fate
    found = absorption.fate_probabilities(forked["walk"], ends, 3, forked["order"], solver)
    np.testing.assert_allclose(found.probabilities, dense_fates(forked["walk"], ends, 3), atol=1e-7)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    assert found.solver == solver
    assert found.error < 1e-6
    assert (found.iterations > 0) == (solver == "iterative")
    late = forked["time"] > 0.75
    assert (found.probabilities.argmax(axis=1) == forked["branch"])[late].mean() > 0.97


def test_auto_takes_the_factorisation_for_few_cells(forked, monkeypatch):
    ends = np.full(600, -1)
    ends[:5], ends[5:10] = 0, 1
    assert absorption.fate_probabilities(forked["walk"], ends, 2).solver == "direct"
    monkeypatch.setattr(absorption, "DIRECT_CELLS", 100)
    assert absorption.fate_probabilities(forked["walk"], ends, 2).solver == "iterative"


def test_cells_that_lead_nowhere_have_no_fate():
    walk = sp.block_diag([random_walk(20), random_walk(10, 1)], format="csr")
    ends = np.full(30, -1)
    ends[3], ends[11] = 0, 1
    found = absorption.fate_probabilities(walk, ends, 2)
    assert np.isnan(found.probabilities[20:]).all()
    assert np.isfinite(found.probabilities[:20]).all()
    np.testing.assert_allclose(found.probabilities[:20], dense_fates(random_walk(20), ends[:20], 2), atol=1e-10)


def test_all_cells_terminal():
    found = absorption.fate_probabilities(random_walk(4), np.array([0, 1, 0, 1]), 2)
    np.testing.assert_allclose(found.probabilities, np.eye(2)[[0, 1, 0, 1]])


def test_an_iteration_that_does_not_converge_is_said(forked, monkeypatch):
    ends = np.full(600, -1)
    ends[0] = 0
    monkeypatch.setattr(absorption, "_MOST_ITERATIONS", 1)
    monkeypatch.setattr(absorption, "_RESTART", 1)
    with pytest.raises(HistoweftError, match="did not converge"):
        absorption.fate_probabilities(forked["walk"], ends, 1, solver="iterative")


# --------------------------------------------------------------------------------------------------------- solvers


def held_group(leak):
    """Return a walk in which three of nine cells leave their own group with probability `leak`, and its ends."""
    walk = np.zeros((9, 9))
    walk[:3, :3] = (1 - leak) / 3
    walk[:3, 3] = leak
    walk[np.arange(3, 8), np.arange(4, 9)] = 1
    walk[8, 8] = 1
    ends = np.full(9, -1)
    ends[7:] = [0, 1]
    return sp.csr_matrix(walk), ends


@pytest.mark.parametrize("solver", ["direct", "iterative"])
@pytest.mark.parametrize("leak", [1e-18, 1e-200])
def test_fates_of_cells_that_hardly_leave_their_group_are_refused(solver, leak):
    walk, ends = held_group(leak)
    with pytest.raises(HistoweftError, match=r"fate probabilities: the .*hardly ever leave their own group"):
        absorption.fate_probabilities(walk, ends, 2, solver=solver)


def test_the_error_of_fates_is_judged_before_rows_are_scaled(forked, monkeypatch):
    walk, ends = held_group(0.5)
    assert absorption.fate_probabilities(walk, ends, 2, solver="direct").error < 1e-12
    exact = absorption._direct
    monkeypatch.setattr(absorption, "_direct", lambda system, into: (2 * exact(system, into)[0], 0))
    with pytest.raises(HistoweftError, match="is wrong by 1 "):
        absorption.fate_probabilities(walk, ends, 2, solver="direct")


def no_convergence(*_, **__):
    from scipy.sparse.linalg import ArpackNoConvergence

    raise ArpackNoConvergence("no", np.zeros(0), np.zeros((0, 0)))


def test_a_diffusion_that_does_not_converge_is_computed_whole_and_told(forked, monkeypatch):
    known = pseudotime.diffuse(forked["graph"])
    monkeypatch.setattr("scipy.sparse.linalg.eigsh", no_convergence)
    notes = []
    found = pseudotime.diffuse(forked["graph"], notes=notes)
    np.testing.assert_allclose(found.values, known.values, atol=1e-8)
    assert "did not converge" in notes[0]
    monkeypatch.setattr(pseudotime, "DENSE_CELLS", 100)
    with pytest.raises(HistoweftError, match=r"over 600 cells did not converge.*trajectory\.neighbours"):
        pseudotime.diffuse(forked["graph"])


def test_macrostates_that_do_not_converge_are_computed_whole_and_told(forked, monkeypatch):
    known = spectrum.slow_subspace(forked["walk"], 6)
    monkeypatch.setattr("scipy.sparse.linalg.eigs", no_convergence)
    notes = []
    found = spectrum.slow_subspace(forked["walk"], 6, notes=notes)
    np.testing.assert_allclose(found.values, known.values, atol=1e-6)
    assert "did not converge" in notes[0]
    monkeypatch.setattr(spectrum, "DENSE_CELLS", 100)
    with pytest.raises(HistoweftError, match="over 600 cells did not converge"):
        spectrum.slow_subspace(forked["walk"], 6)
