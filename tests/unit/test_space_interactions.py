"""Ligands and receptors: exact moments, co-location that is no signal, and planted signals."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.space import colocation, interactions, ligands, summary
from histoweft.space.graph import Section, spatial_graph
from histoweft.space.interactions import Groups, JointMoments
from histoweft.space.values import rescale

GENES = pd.Index(list("ABCDEF"))


def pairs_of(*rows, genes=GENES):
    return ligands.match(pd.DataFrame(rows, columns=["ligand", "receptor"]), genes)


def some_values(n=200, seed=0, genes=6):
    rng = np.random.default_rng(seed)
    return sp.csc_matrix(rng.gamma(1, 1, (n, genes)) * (rng.random((n, genes)) < 0.4))


# ------------------------------------------------------------------------------------------- between groups


def test_moments_equal_those_of_all_relabellings():
    values = some_values(7, genes=2)
    codes = np.array([0, 0, 0, 1, 1, 2, 2])
    dealt = np.array([np.array(codes)[list(order)] for order in permutations(range(7))])
    dense = values.toarray()
    joint = JointMoments(values, np.array([[0, 1]]))
    u = interactions._contrast_sums(np.bincount(codes))
    for source in range(3):
        for target in range(3):
            x = np.array([dense[labels == source, 0].mean() for labels in dealt])
            y = np.array([dense[labels == target, 1].mean() for labels in dealt])
            total = x + y - dense.mean(axis=0).sum()
            at = (source, target)
            second = u["uu"][at] * joint.xx + 2 * u["uv"][at] * joint.xy + u["vv"][at] * joint.yy
            third = u["uuu"][at] * joint.xxx + u["vvv"][at] * joint.yyy
            third = third + 3 * (u["uuv"][at] * joint.xxy + u["uvv"][at] * joint.xyy)
            assert total.mean() == pytest.approx(0, abs=1e-9)
            assert second[0] / 6 == pytest.approx((total**2).mean())
            assert third[0] * 7 / (6 * 5) == pytest.approx((total**3).mean(), rel=1e-6, abs=1e-9)


def test_joint_moments_in_parts(monkeypatch):
    values = some_values()
    pairs = np.array([[0, 1], [2, 3], [4, 4], [5, 0]])
    whole = JointMoments(values, pairs)
    monkeypatch.setattr(interactions, "_VALUES_AT_ONCE", 100)
    parts = JointMoments(values, pairs)
    centred = values.toarray() - values.toarray().mean(axis=0)
    x, y = centred[:, pairs[:, 0]], centred[:, pairs[:, 1]]
    for name, expected in {"xy": x * y, "xxy": x**2 * y, "xyy": x * y**2, "xxx": x**3, "yy": y**2}.items():
        assert np.allclose(getattr(whole, name), expected.sum(axis=0))
        assert np.allclose(getattr(parts, name), getattr(whole, name))


def test_closed_form_agrees_with_dealing():
    values, rng = some_values(150), np.random.default_rng(1)
    labels = pd.Categorical(rng.choice(list("xyz"), 150, p=[0.5, 0.3, 0.2]))
    pairs = pairs_of(["A", "B"], ["C", "D"], ["A", "A"])
    exact = interactions.score(values, labels, pairs, GENES, 0.0)
    dealt = interactions.score(values, labels, pairs, GENES, 0.0, draws=4_000, small=1_000)
    assert (exact["test"] == "moments").all()
    assert (dealt["test"] == "permutation").all()
    on = ["source", "target", "ligand_complex", "receptor_complex"]
    both = exact.merge(dealt, on=on, suffixes=("", "_dealt"))
    assert len(both) == 27
    noise = np.sqrt(both["pvals"] * (1 - both["pvals"]) / 4_000)
    assert (np.abs(both["pvals"] - both["pvals_dealt"]) < 4 * noise + 0.006).all()


def test_means_equal_squidpy_and_p_values_do_within_its_draws():
    anndata, sq = pytest.importorskip("anndata"), pytest.importorskip("squidpy")
    values, rng = some_values(120).astype(np.float32), np.random.default_rng(1)
    labels = pd.Categorical(rng.choice(list("xyz"), 120))
    pairs = [["A", "B"], ["C", "D"]]
    adata = anndata.AnnData(values.tocsr(), obs=pd.DataFrame({"label": labels}), var=pd.DataFrame(index=GENES))
    peer = sq.gr.ligrec(
        adata, "label", interactions=pd.DataFrame(pairs, columns=["source", "target"]), n_perms=1_000, threshold=0,
        use_raw=False, copy=True, seed=0, n_jobs=1, show_progress_bar=False, numba_parallel=False, backend="threading",
    )  # fmt: skip
    ours = interactions.score(values, labels, pairs_of(*pairs), GENES, 0.0)
    for row in ours.itertuples():
        at = (row.ligand, row.receptor), (row.source, row.target)
        assert row.lr_means == pytest.approx(peer["means"].loc[at], rel=1e-5)
        assert abs(row.pvals - peer["pvalues"].loc[at]) < 4 * np.sqrt(0.25 / 1_000)


def test_a_complex_is_its_weakest_subunit_in_each_group():
    values = sp.csc_matrix(np.array([[3.0, 1, 5], [3, 1, 5], [1, 4, 0], [1, 4, 0]]))
    genes = pd.Index(["A", "B", "C"])
    pairs = pairs_of(["A_B", "C"], genes=genes)
    groups = Groups.of(values, np.array([0, 0, 1, 1]), 2)
    subunit, share = groups.weakest(pairs)
    at = pairs.names.index("A_B")
    assert subunit[:, at].tolist() == [1, 0]
    assert share[:, pairs.names.index("C")].tolist() == [1, 0]
    labels = pd.Categorical(["x", "x", "y", "y"])
    table = interactions.score(values, labels, pairs, genes, 0.1, draws=200)
    # C is not found in y, so nothing has y as its target.
    found = set(map(tuple, table[["source", "target", "ligand"]].astype(str).to_numpy()))
    assert found == {("x", "x", "B"), ("y", "x", "A")}
    assert (table["test"] == "permutation").all()


def test_random_labels_are_called_at_the_nominal_rate():
    values, rng = some_values(400, genes=6), np.random.default_rng(0)
    pairs = pairs_of(["A", "B"], ["C", "D"], ["E", "F"], ["A_C", "F"])
    p, called = [], 0
    for _ in range(60):
        table = interactions.score(values, pd.Categorical(rng.choice(list("wxyz"), 400)), pairs, GENES, 0.0)
        p.append(table.loc[table["ligand_complex"] != "A_C", "pvals"])
        called += (table["q"] < 0.05).any()
    p = np.concatenate(p)
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.02)
    assert called <= 8  # 60 null studies: 3 expected


def test_cells_without_label_are_left_out():
    values = some_values(100)
    names = np.random.default_rng(0).choice(["x", "y"], 100).astype(object)
    names[60:] = None
    labels = pd.Categorical(names, categories=["x", "y"])
    pairs = pairs_of(["A", "B"])
    whole = interactions.score(values, labels, pairs, GENES)
    part = interactions.score(values[:60], labels[:60], pairs, GENES)
    pd.testing.assert_frame_equal(whole, part)


def test_no_pair_gives_an_empty_table():
    table = interactions.score(some_values(20), pd.Categorical(["x", "y"] * 10), pairs_of(["P", "Q"]), GENES)
    assert table.empty
    assert list(table.columns) == list(interactions.COLUMNS)


# ------------------------------------------------------------------------------------------------ resources


def test_consensus_of_both_organisms():
    human = ligands.read_resource("consensus", "auto", pd.Index(["GAPDH", "CD4", "CXCL12"]))
    mouse = ligands.read_resource("consensus", "auto", pd.Index(["Gapdh", "Cd4", "Cxcl12"]))
    assert ["CXCL12", "CXCR4"] in human.to_numpy().tolist()
    assert ["Cxcl12", "Cxcr4"] in mouse.to_numpy().tolist()
    assert len(human) > 4_000
    assert not human.duplicated().any()
    # What the files say goes before how symbols are written; the option goes before both.
    assert ligands.read_resource("consensus", "auto", pd.Index(["GAPDH"]), "mouse").equals(mouse)
    assert ligands.read_resource("consensus", "human", pd.Index(["Gapdh"]), "mouse").equals(human)


def test_own_table(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("receptor,ligand,note\nB,A,x\nB_C,A,y\nB,A,z\n")
    table = ligands.read_resource(str(path), "auto", GENES)
    assert table.to_numpy().tolist() == [["A", "B"], ["A", "B_C"]]
    pairs = ligands.match(table, GENES)
    assert [[GENES[pairs.genes[i]] for i in rows] for rows in pairs.subunits] == [["A"], ["B"], ["B", "C"]]
    assert "2 of 2 pairs" in ligands.in_words(pairs, table, "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [("a\tb\n1\t2\n", "a column 'ligand'"), ("ligand\treceptor\nA\tB\nC\t\n", r"line 3.*no receptor")],
)
def test_own_table_with_faults(tmp_path, text, words):
    path = tmp_path / "pairs.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        ligands.read_resource(str(path), "auto", GENES)
    with pytest.raises(InputError, match="consensus, or a"):
        ligands.read_resource(str(tmp_path / "absent.tsv"), "auto", GENES)


def test_pairs_need_all_their_genes():
    pairs = pairs_of(["A", "B"], ["A_X", "B"], ["C", "D_E"], ["Q", "A"])
    assert [(pairs.names[a], pairs.names[b]) for a, b in zip(pairs.ligand, pairs.receptor)] == [
        ("A", "B"),
        ("C", "D_E"),
    ]
    assert GENES[pairs.genes].tolist() == ["A", "B", "C", "D", "E"]


# -------------------------------------------------------------------------------------------- on the tissue


def lattice(side=40):
    r, c = np.divmod(np.arange(side * side), side)
    xy = np.column_stack([100 * (c + 0.5 * (r % 2)), 86.6 * r]).astype(float)
    return xy, spatial_graph(Section(xy, True, "visium"))[1]


def smooth(xy, length, rng, count):
    """Draw independent smooth fields, (n, count): sums of random waves of a Gaussian spectrum."""
    waves = rng.normal(0, 1 / length, (60, 2, count))
    phase = rng.uniform(0, 2 * np.pi, (60, count))
    return np.sqrt(2 / 60) * np.cos(np.einsum("nd,wdk->nwk", xy, waves) + phase).sum(axis=1)


def test_independent_smooth_fields_are_called_at_the_nominal_rate():
    rng, (xy, graph) = np.random.default_rng(0), lattice(30)
    x = smooth(xy, 250, rng, 40) + 0.5 * rng.normal(size=(900, 40))
    y = smooth(xy, 250, rng, 40) + 0.5 * rng.normal(size=(900, 40))
    u = colocation.surroundings(graph, True) @ (y - y.mean(axis=0)).astype(np.float32)
    found = colocation.products((x - x.mean(axis=0)).astype(np.float32), u - u.mean(axis=0), colocation.Raster(xy, 100))
    naive = found.z * np.sqrt(found.inflation)
    assert naive.std() > 2.5  # what a permutation of the spots would take for signals
    assert 0.8 < found.z.std() < 1.25
    assert (found.z > 1.645).mean() < 0.09


def test_variance_holds_where_both_vary_in_the_same_part():
    rng, (xy, graph) = np.random.default_rng(0), lattice(30)
    spread = np.where(xy[:, :1] < 1_000, 3.0, 0.3)
    x, y = (spread * rng.normal(size=(900, 60)) for _ in range(2))
    u = colocation.surroundings(graph, False) @ y.astype(np.float32)
    found = colocation.products(x.astype(np.float32), u - u.mean(axis=0), colocation.Raster(xy, 100))
    assert found.z.std() == pytest.approx(1, abs=0.1)


def test_raster_counts_all_pairs_by_vector():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 10, (40, 2))
    values = rng.normal(size=(40, 2)).astype(np.float32)
    raster = colocation.Raster(xy, 1.0, reach=3)
    cell = np.floor(xy - xy.min(axis=0)).astype(int)
    gap = cell[:, None] - cell[None]
    near = ((gap**2).sum(axis=-1) <= 9) & ~np.eye(40, dtype=bool)
    assert raster.pairs.sum() == near.sum()
    expected = (near * np.outer(values[:, 0], values[:, 0])).sum()
    assert raster.autocovariance(values)[0].sum() == pytest.approx(expected, rel=1e-4)


def sections(seed, planted):
    """Draw a tissue of two types in regions: 12 decoys that follow the types, and a pair that may signal at one place.

    Returns values, labels, components, xy, graph; the pair is L0-R0, each decoy pair Lk-Rk.
    """
    rng, (xy, graph) = np.random.default_rng(seed), lattice()
    share = 1 / (1 + np.exp(-2 * smooth(xy, 500, rng, 1)[:, 0]))
    amount = np.column_stack([rng.binomial(8, share), rng.binomial(8, 1 - share)]) / 8
    zone = (np.hypot(*(xy - [2_000, 1_700]).T) < 500) & planted
    rates = 0.3 + 2.0 * np.repeat(amount, 13, axis=1)
    rates[:, [0, 13]] *= np.where(zone, 4, 1)[:, None]
    markers = 0.5 + 4 * np.repeat(amount, 20, axis=1)
    values = np.log1p(rng.poisson(np.column_stack([rates, markers]))).astype(np.float32)
    components = values[:, 26:] - values[:, 26:].mean(axis=0)
    components = components @ np.linalg.svd(components, full_matrices=False)[2][:5].T
    labels = pd.Categorical(np.where(share > 0.5, "one", "two"))
    return sp.csc_matrix(values), labels, components, xy, graph


def place(seed, planted):
    values, labels, components, xy, graph = sections(seed, planted)
    genes = pd.Index([f"L{i}" for i in range(13)] + [f"R{i}" for i in range(13)])
    resource = pd.DataFrame({"ligand": genes[:13], "receptor": genes[13:]})
    basis = colocation.composition(labels, components, np.full(len(xy), 1_000.0))
    pairs = ligands.match(resource, genes)
    barcodes = pd.Index([f"b{i}" for i in range(len(xy))])
    found = colocation.colocate(values[:, :26], pairs, values[:, 26:46], basis, graph, xy, True, barcodes, top=2)
    return found, barcodes


def test_a_planted_signal_is_found_and_co_location_by_composition_is_not():
    tables = {}
    for seed in range(3):
        found, barcodes = place(seed, planted=True)
        first = found.table.iloc[0]
        assert (first["ligand_complex"], first["receptor_complex"]) == ("L0", "R0")
        assert first["q"] < 0.05
        tables[f"s{seed}"] = found.table
    decoys = pd.concat(tables.values())
    decoys = decoys[decoys["ligand_complex"] != "L0"]
    assert (decoys["raw_score"].abs() > 0.1).mean() > 0.5  # the types' shares tie ligand and receptor together
    assert decoys["z"].abs().mean() < 1.2
    assert (decoys["q"] < 0.05).sum() <= 1
    assert list(found.local.columns) == ["L0^R0", found.local.columns[1]]
    assert found.local.index.equals(barcodes)
    assert found.local.mean().to_numpy() == pytest.approx(found.table["score"][:2].to_numpy(), rel=1e-3)
    joined = summary.combine_interactions(tables)
    assert joined.iloc[0]["ligand_complex"] == "L0"
    assert joined.iloc[0]["z"] == pytest.approx(sum(t.iloc[0]["z"] for t in tables.values()) / np.sqrt(3))
    assert joined.iloc[0]["found_in"] == 3


def test_nothing_is_found_where_nothing_is_planted():
    tables = [place(seed, planted=False)[0].table for seed in range(10, 14)]
    p = pd.concat(tables)["p"]
    assert sum((table["q"] < 0.05).any() for table in tables) <= 1
    assert (p < 0.05).mean() < 0.13


def test_genes_with_themselves_and_rare_genes_are_not_tested():
    xy, graph = lattice(10)
    rng = np.random.default_rng(0)
    dense = rng.random((100, 6)) * (rng.random((100, 6)) < 0.8)
    dense[:, 3] = 0
    pairs = pairs_of(["A", "A"], ["A_B", "B"], ["C", "D"], ["E", "F"])
    basis = colocation.composition(pd.Categorical(["x", "y"] * 50), np.zeros((100, 0)), np.ones(100))
    given = (pairs, sp.csc_matrix((100, 0)), basis, graph, xy, False, pd.RangeIndex(100))
    found = colocation.colocate(sp.csc_matrix(dense[:, pairs.genes]), *given)
    assert found.table[["ligand_complex", "receptor_complex"]].to_numpy().tolist() == [["E", "F"]]
    assert found.table["null_sd"].tolist() == [1.0]  # too few unrelated pairs to measure it
    none = colocation.colocate(sp.csc_matrix((100, len(pairs.genes))), *given)
    assert none.table.empty
    assert none.local.shape == (100, 0)


def test_null_spread_follows_the_gene():
    rng = np.random.default_rng(0)
    scale = np.array([1.0] * 30 + [4.0] * 10)
    z = scale[:, None] * rng.normal(size=(40, 200))
    spread = colocation.null_spread(z, np.ones(z.shape, dtype=bool))
    assert np.allclose(spread[:30].mean(), 1, atol=0.15)
    assert np.allclose(spread[30:].mean(), 4, atol=0.3)
    assert (spread >= 1).all()


def test_composition_is_orthonormal_and_counts_unlabelled_points_as_a_group():
    rng = np.random.default_rng(0)
    labels = pd.Categorical(rng.choice(np.array(["x", "y", None], dtype=object), 100), categories=["x", "y"])
    basis = colocation.composition(labels, rng.normal(size=(100, 30)), rng.uniform(1, 9, 100))
    assert np.allclose(basis.T @ basis, np.eye(basis.shape[1]))
    assert basis.shape[1] == 1 + 2 + 5 + 1  # constant, groups, n / 20 components, total
    unlabelled = np.asarray(labels.codes) < 0
    assert np.allclose(basis @ (basis.T @ unlabelled), unlabelled)


def test_controls_have_no_part_in_a_pair_and_are_found_often_enough():
    found = np.array([500, 10, 400, 300, 200, 31])
    chosen = colocation.choose_controls(found, 1_000, np.array([0, 2]), seed=0)
    assert chosen.tolist() == [3, 4, 5]
    assert len(colocation.choose_controls(np.full(500, 99), 1_000, np.array([0]), seed=0)) == colocation.CONTROLS


def test_rescaling_equals_normalising_to_the_median_total():
    counts = np.array([[1.0, 9], [4, 16], [10, 20]])
    totals = counts.sum(axis=1)
    values = sp.csc_matrix(np.log1p(counts / totals[:, None] * 10_000).astype(np.float32))
    assert np.allclose(rescale(values, totals, 10_000).toarray(), np.log1p(counts / totals[:, None] * 20), rtol=1e-4)


def test_spots_hold_several_cells_and_bins_do_not():
    assert colocation.holds_several_cells(55)
    assert not colocation.holds_several_cells(8)
    assert not colocation.holds_several_cells(float("nan"))


def test_summary_of_genes_and_words():
    one = pd.DataFrame({"gene": ["a", "b", "c"], "moran": [0.5, 0.1, np.nan], "q": [0.001, 0.2, np.nan]})
    two = pd.DataFrame({"gene": ["a", "b", "d"], "moran": [0.3, 0.2, 0.9], "q": [0.001, 0.01, 0.001]})
    genes = summary.combine_genes({"x": one, "y": two})
    assert genes["gene"].tolist() == ["a", "b"]  # c was never tested, d in half of the sections
    assert genes["moran"].tolist() == pytest.approx([0.4, 0.15])
    assert genes["found_in"].tolist() == [2, 1]
    empty = summary.combine_interactions({"x": pd.DataFrame(columns=list(colocation.COLUMNS))})
    said = summary.in_words(empty, genes, 2)
    assert said["texts"] == ["1 of 2 genes are spatially variable (Moran's I, q < 0.05) in all 2 sections."]
    assert "No ligand-receptor pair" in said["warnings"][0]
