"""Signatures and their scores: reading, matching, equality with decoupler, cell cycle."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.io import CountsFile, CsrWriter
from histoweft.normalise import normalise
from histoweft.states import cycle, scores, signatures

HEADER = "signature\tgene\tweight\tsource\n"


@pytest.fixture(scope="module")
def tables(repo):
    return sorted((repo / "resources" / "signatures").glob("*.tsv"))


@pytest.fixture(scope="module")
def expression():
    """Return log-normalised counts, every gene and barcode with some, and gene names."""
    rng = np.random.default_rng(0)
    rate = rng.lognormal(0, 1, 300) * rng.lognormal(0, 0.4, (40, 1))
    return normalise(sp.csr_matrix(rng.poisson(3 * rate))), [f"g{i}" for i in range(300)]


def written(tmp_path, text, name="own.tsv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_row_of_the_tables_names_its_paper(tables):
    table = signatures.read_signatures(tables)
    assert len(tables) == 2
    assert len(table) > 200
    assert table["source"].str.contains(r"\b(?:19|20)\d\d\b.*doi:10\.").all()
    assert table["note"].ne("").all()
    persister = {"antioxidant_gpx4", "fatty_acid_oxidation", "diapause", "chromatin_kdm5a"}
    assert persister | {"s_phase", "g2m_phase", "proliferation", "hypoxia", "emt"} <= set(table["signature"])
    # Nothing that persisters are corrected for may be read off their own genes.
    cycle_genes = set(table["gene"][table["signature"].isin(signatures.CYCLE)])
    assert not cycle_genes & set(table["gene"][table["signature"].isin(persister)])


def test_all_faults_of_all_tables_are_said_at_once(tmp_path):
    first = written(tmp_path, HEADER + "a\tX\tone\tpaper\na\t\t1\tpaper\na\tY\t0\tpaper\n", "first.tsv")
    second = written(tmp_path, "signature\tgenes\tweight\tsource\na\tX\t1\tpaper\n", "second.tsv")
    with pytest.raises(InputError) as caught:
        signatures.read_signatures([first, second, tmp_path / "none.tsv"])
    text = str(caught.value)
    assert "5 faults" in text
    assert "first.tsv, line 2, column weight: found 'one'" in text
    assert "first.tsv, line 3, column gene: found an empty cell" in text
    assert "first.tsv, line 4, column weight: found '0'" in text
    assert "second.tsv: found no column 'gene'" in text
    assert "Did you mean 'genes'?" in text
    assert "none.tsv" in text


def test_a_gene_twice_in_a_signature_is_refused(tmp_path):
    first = written(tmp_path, HEADER + "a\tX\t1\tpaper\n", "first.tsv")
    second = written(tmp_path, HEADER + "a\tX\t-1\tpaper\n", "second.tsv")
    with pytest.raises(InputError, match=r"second\.tsv: a: found X twice"):
        signatures.read_signatures([first, second])


def test_genes_are_found_by_case_and_alias_and_thin_signatures_left_out(tmp_path):
    text = HEADER.rstrip("\n") + "\tnote\taliases\n"
    text += "a\tGPX4\t1\tp\tn\t\na\tPIMREG\t-1\tp\tn\tOTHER FAM64A\na\tABSENT\t1\tp\tn\t\nb\tABSENT\t1\tp\tn\t\n"
    table = signatures.read_signatures([written(tmp_path, text)])
    panel = signatures.match(table, ["Actb", "Gpx4", "Fam64a"], min_genes=2)
    assert panel.names == ["a"]
    assert panel.weights.toarray().ravel().tolist() == [0, 1, -1]
    assert list(panel.members("a")) == [1, 2]
    assert len(panel.members("b")) == 0
    assert panel.coverage.set_index("signature").loc["a", "missing"] == "ABSENT"
    assert panel.warnings() == ["Signature b is left out: 0 of its 1 genes are in the panel."]
    assert panel.pick(["b", "a"]).names == ["a"]


def test_unknown_programmes_are_refused_with_a_proposal():
    with pytest.raises(InputError, match=r"'diapauze'.*Did you mean 'diapause'\?"):
        signatures.check_programmes(["diapauze"], ["diapause", "emt"])


def test_ulm_equals_decoupler(expression):
    import decoupler

    values, genes = expression
    rng = np.random.default_rng(1)
    rows = [
        (f"set{s}", genes[g], w)
        for s in range(6)
        for g, w in zip(rng.choice(300, 12, replace=False), rng.choice([1.0, -1.0, 0.5], 12))
    ]
    net = pd.DataFrame(rows, columns=["source", "target", "weight"])
    wanted, _ = decoupler.mt.ulm(pd.DataFrame(values.toarray(), columns=genes), net)
    weights = net.pivot(index="target", columns="source", values="weight").reindex(genes).fillna(0)
    found = scores.ulm(values, sp.csc_matrix(weights.to_numpy()))
    assert np.allclose(found, wanted[weights.columns].to_numpy(), atol=1e-6)


def test_aucell_equals_decoupler(expression):
    import decoupler

    genes = expression[1]
    rng = np.random.default_rng(2)
    values = sp.csr_matrix(rng.random((40, 300)))  # without ties, whose order is the implementation's own
    net = pd.DataFrame(
        [(f"set{s}", genes[g]) for s in range(6) for g in rng.choice(300, 8 + 3 * s, replace=False)],
        columns=["source", "target"],
    )
    dense = pd.DataFrame(values.toarray(), columns=genes)
    wanted = decoupler.mt.aucell(dense, net)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    weights = pd.crosstab(net["target"], net["source"]).reindex(genes).fillna(0)
    found = scores.aucell(values, sp.csc_matrix(weights.to_numpy(dtype=float)))
    assert found.max() > 0.1
    assert np.allclose(found, wanted[weights.columns].to_numpy(), atol=1e-6)


def test_flat_barcodes_and_sets_score_nothing():
    values = sp.csr_matrix(np.array([[1.0, 1, 1, 1], [0, 0, 0, 0], [3, 0, 1, 0]]))
    weights = sp.csc_matrix(np.array([[1.0, 1], [0, 1], [0, 1], [0, 1]]))
    found = scores.ulm(values, weights)
    assert found[:2].tolist() == [[0, 0], [0, 0]]
    assert found[2, 0] > 1
    assert found[2, 1] == 0


def test_moments_equal_those_of_the_dense_matrix(tmp_path):
    rng = np.random.default_rng(3)
    counts = sp.csr_matrix(rng.poisson(1.0, (50, 20)))
    with CsrWriter(tmp_path / "c.h5ad", 20, np.int32) as writer:
        writer.append(counts.astype(np.int32))
        writer.finish(
            pd.DataFrame(index=[f"b{i}" for i in range(50)]), pd.DataFrame(index=[f"g{i}" for i in range(20)])
        )
    with CountsFile(tmp_path / "c.h5ad") as file:
        found = scores.moments(file, 1e4)
    dense = normalise(counts).toarray()
    assert np.allclose(found.totals, np.asarray(counts.sum(axis=1)).ravel())
    assert np.allclose(found.mean, dense.mean(axis=0), atol=1e-5)
    assert np.allclose(found.variance, dense.var(axis=0), atol=1e-4)


def test_cycle_contrast_compares_members_with_genes_expressed_alike():
    mean = np.arange(100, dtype=float)
    weights = cycle.contrast(mean, np.array([10, 50, 51])).toarray().ravel()
    assert weights[[10, 50, 51]] == pytest.approx([1 / 3] * 3)
    assert weights.sum() == pytest.approx(0)
    # Expression that only follows the mean gives no contrast worth the name: controls lie within four genes.
    assert abs(weights @ mean) < 2
    assert not cycle.contrast(mean, np.array([], dtype=int)).nnz


def test_phases():
    s = np.array([0.5, -1, -0.2, np.nan, np.nan])
    g2m = np.array([0.2, 0.3, -0.1, np.nan, 1.0])
    found = cycle.phases(s, g2m)
    assert list(found[:3]) == ["S", "G2M", "G1"]
    assert pd.isna(found[3])
    assert found[4] == "G2M"


def test_conditions_without_cells_that_could_persist_are_not_compared_in_words():
    from histoweft.states.score import _contrast_texts

    names = {"measure": "persister_share", "design": "unpaired", "first": "before", "second": "after", "note": ""}
    row = names | {"n_first": 0, "n_second": 0} | dict.fromkeys(("mean_first", "mean_second", "effect", "low"), np.nan)
    (text,) = _contrast_texts(pd.DataFrame([row]))
    assert text == "before and after are not compared: no cells that could persist on both sides."
