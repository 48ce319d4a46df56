"""The space, the models of one interface, what they explain, and how they are stored."""

import annotation_cases as cases
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.annotation import evaluate, explain, folds, gene_sets, models, space
from histoweft.annotation.genes import Expression
from histoweft.annotation.models import Options
from histoweft.annotation.reference import Cells
from histoweft.errors import HistoweftError, InputError

FEW = Options(neighbours=8, epochs=8)
EVERY = ["logistic", "knn", "transformer", "gnn"]


@pytest.fixture(scope="module")
def reference():
    return cases.reference_of()


@pytest.fixture(scope="module")
def query():
    """Other cells of the same types."""
    return cases.reference_of({"alpha": 40, "beta": 40, "delta": 40, "rare": 40}, seed=5)


@pytest.fixture(scope="module")
def fitted(reference):
    return {name: evaluate.train(reference, name, 100, 10, FEW) for name in EVERY}


# ------------------------------------------------------------------------------------------------------- space


def test_the_space_is_the_pca_of_the_chosen_genes(reference):
    found = space.learn_space(reference.expression, reference.codes, 60, 5)
    dense = reference.expression[:, found.columns].toarray().astype(float)
    left, size, _ = np.linalg.svd(dense - dense.mean(axis=0), full_matrices=False)
    expected = left[:, :5] * size[:5]
    scores = found.project(reference.expression) * found.unit
    assert np.allclose(np.abs(scores), np.abs(expected), atol=1e-3)
    assert scores[:, 0].std() == pytest.approx(found.unit, rel=1e-4)


def test_genes_of_large_variance_and_leading_genes_of_each_type_are_taken(reference):
    found = space.learn_space(reference.expression, reference.codes, 10, 5)
    variance = np.asarray(reference.expression.toarray().var(axis=0))
    assert set(np.argsort(-variance)[:10]) <= set(found.columns)
    # The rare type's genes vary little, but are there.
    assert {f"G{i}" for i in range(60, 72)} <= set(cases.NAMES[found.columns])
    assert len(space.learn_space(reference.expression, reference.codes, 500, 5).columns) <= cases.GENES


def test_an_embedding_takes_the_place_of_genes(reference):
    dense = np.random.default_rng(0).normal(size=(len(reference), 6)).astype(np.float32)
    found = space.learn_space(dense, reference.codes, 10, 20)
    assert list(found.columns) == list(range(6))
    assert found.axes.shape == (6, 6)
    # All axes kept: distances are those of the embedding.
    assert np.allclose(
        np.linalg.norm(found.project(dense[:1]) - found.project(dense[1:2])) * found.unit,
        np.linalg.norm(dense[0] - dense[1]), rtol=1e-4,
    )  # fmt: skip


def test_weights_of_scores_carried_to_genes_give_the_same_logits(reference):
    found = space.learn_space(reference.expression, reference.codes, 60, 5)
    weights = np.random.default_rng(0).normal(size=(3, 5))
    dense = reference.expression[:, found.columns].toarray() - found.mean
    assert np.allclose(found.project(reference.expression) @ weights.T, dense @ found.to_genes(weights).T, atol=1e-3)


def test_the_distance_is_mahalanobis_to_the_nearest_mean():
    rng = np.random.default_rng(0)
    covariance = np.array([[4.0, 1.5], [1.5, 1.0]])
    codes = np.repeat([0, 1], 40_000)
    scores = rng.multivariate_normal([0, 0], covariance, 80_000) + np.outer(codes, [20.0, 0.0])
    distance = space.learn_distance(scores, codes)
    shrunk = 0.9 * covariance + 0.1 * 2.5 * np.eye(2)
    points = np.array([[1.0, 2.0], [22.0, -1.0]])
    expected = [np.sqrt(d @ np.linalg.inv(shrunk) @ d) for d in (points[0], points[1] - [20, 0])]
    assert distance(points) == pytest.approx(expected, rel=0.03)


# ------------------------------------------------------------------------------------------------------ models


@pytest.mark.parametrize("name", EVERY)
def test_planted_types_are_found_in_other_cells(name, fitted, query):
    logits = fitted[name].model.logits(evaluate.cells_of(query, fitted[name].space))
    right = logits.argmax(axis=1) == query.codes
    assert logits.dtype == np.float32
    assert logits.shape == (160, 4)
    assert min(right[query.codes == code].mean() for code in range(4)) > 0.85


@pytest.mark.parametrize("name", EVERY)
def test_a_stored_model_says_the_same(name, fitted, query):
    cells = evaluate.cells_of(query, fitted[name].space)
    model = fitted[name].model
    assert np.allclose(models.restore(name, model.state()).logits(cells), model.logits(cells), atol=1e-5)


@pytest.mark.parametrize("name", ["transformer", "gnn"])
def test_the_same_seed_gives_the_same_network(name, reference, query, fitted):
    again = evaluate.train(reference, name, 100, 10, FEW)
    cells = evaluate.cells_of(query, again.space)
    assert (again.model.logits(cells) == fitted[name].model.logits(cells)).all()


def test_balanced_weights_let_all_types_count_alike():
    codes = np.array([0] * 90 + [2] * 10)
    weights = models.balanced_weights(codes, 3)
    assert weights[1] == 0
    assert weights[0] * 90 == pytest.approx(weights[2] * 10)
    assert weights[codes].mean() == pytest.approx(1)


def test_logistic_regression_is_balanced_and_its_penalty_chosen(fitted, reference):
    from sklearn.linear_model import LogisticRegression

    one = fitted["logistic"]
    cells = evaluate.cells_of(reference, one.space)
    assert one.model.inverse_penalty in models.Logistic.INVERSE_PENALTIES
    other = LogisticRegression(C=one.model.inverse_penalty, class_weight="balanced", max_iter=2000)
    other.fit(cells.scores, reference.codes)
    mine = one.model.logits(cells)
    mine -= mine.mean(axis=1, keepdims=True)
    theirs = other.decision_function(cells.scores)
    assert np.abs(mine - theirs).max() < 0.1 * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["logistic", "knn"])
def test_two_types_and_a_type_without_cells(name):
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 2], 60)
    scores = (rng.normal(size=(120, 3)) + 4 * (codes[:, None] == 2)).astype(np.float32)
    model = models.build(name, cases.NAMES, Options()).fit(Cells(scores, None), codes, None, 3, None)
    logits = model.logits(Cells(scores, None))
    assert (logits.argmax(axis=1) == codes).mean() > 0.97
    assert (logits.argmax(axis=1) != 1).all()


def test_nearest_cells_vote_with_the_weight_of_their_type():
    scores = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]], np.float32)
    model = models.Knn(Options(neighbours=2)).fit(Cells(scores, None), np.array([0, 0, 0, 1, 1]), None, 2, None)
    logits = model.logits(Cells(np.array([[0.05], [5.05]], np.float32), None))
    weights = np.sqrt(models.balanced_weights(np.array([0, 0, 0, 1, 1]), 2))
    assert np.allclose(logits, np.log([[2 * weights[0] + 0.5, 0.5], [0.5, 2 * weights[1] + 0.5]]))


# ------------------------------------------------------------------------------------------------ explanations


@pytest.mark.parametrize("name", ["logistic", "transformer", "gnn"])
def test_planted_markers_lead_the_explanation(name, fitted, reference):
    markers = {kind: set(genes) for kind, genes in cases.MARKERS.items() if kind in reference.types}
    table, recovered = explain.explain(fitted[name], reference, markers)
    assert set(recovered) == set(markers)
    # Of the rare type there are few cells, and a network learns it by fewer genes.
    assert recovered.pop("rare") > 0.65
    assert min(recovered.values()) > 0.85
    first = table[(table["kind"] == "gene") & (table["rank"] <= 5)]
    for kind in recovered:
        assert len(set(first.loc[first["type"] == kind, "name"]) & markers[kind]) >= 4
    planted = [name in markers[kind] for kind, name in zip(table["type"], table["name"])]
    assert (table.loc[planted, "expressed"] == "higher").all()
    assert (table["kind"] == "gene set").any() == (name == "transformer")


def test_contributions_of_genes_sum_to_the_difference_of_logits(fitted, reference):
    one = fitted["logistic"]
    cells = evaluate.cells_of(reference, one.space)
    weights = one.model.gene_weights(cells, reference.codes)
    logits = one.model.logits(cells).astype(float)
    logits -= logits.mean(axis=1, keepdims=True)
    means = np.stack([logits[reference.codes == code].mean(axis=0) for code in range(4)])
    expected = np.diag(means) - means.mean(axis=0)
    assert np.allclose(weights.sum(axis=1), expected, atol=1e-2 * np.abs(expected).max())


def test_attention_goes_to_the_sets_that_hold_the_markers(reference):
    sets = {name: genes for name, genes in cases.MARKERS.items() if name in reference.types}
    rng = np.random.default_rng(0)
    sets |= {f"noise{i}": list(rng.choice(cases.NAMES[100:], 10, replace=False)) for i in range(4)}
    found = evaluate.train(reference, "transformer", 200, 10, Options(epochs=20, gene_sets=sets))
    assert found.model.tokens.names == list(sets)
    attention = found.model.attention(evaluate.cells_of(reference, found.space), reference.codes)
    assert np.allclose(attention.sum(axis=1), attention.sum(axis=1).mean(), atol=0.6)
    informative = attention[:, :4].sum(axis=1).mean() / 4
    assert informative > attention[:, 4:].sum(axis=1).mean() / 4


def test_models_without_genes_explain_nothing(fitted, reference):
    table, recovered = explain.explain(fitted["knn"], reference, {"alpha": {"G0"}})
    assert table.empty
    assert recovered == {}


def test_markers_of_other_types_are_refused(tmp_path):
    path = tmp_path / "markers.tsv"
    path.write_text("type\tgene\nalpha\tG1\nalpha\tG2\nother\tG3\n")
    assert explain.read_markers(path, ["alpha", "beta"]) == {"alpha": {"G1", "G2"}}
    with pytest.raises(InputError, match=r"types such as 'alpha'; expected types of the reference: Alpha"):
        explain.read_markers(path, ["Alpha", "Beta"])


# --------------------------------------------------------------------------------------------------- gene sets


def test_modules_gather_genes_that_vary_together(reference):
    found = space.learn_space(reference.expression, reference.codes, 150, 8)
    names = cases.NAMES[found.columns]
    tokens = gene_sets.learned_tokens(found, found.project(reference.expression), names, 0)
    members = [set(names[genes[keep]]) for genes, keep in zip(tokens.genes, tokens.member, strict=True)]
    assert sum(map(len, members)) == len(names)
    for kind in ("alpha", "beta", "delta"):
        planted = set(cases.MARKERS[kind])
        assert max(len(planted & module) for module in members) >= 8
    assert "module 1 (" in tokens.names[0]


def test_given_sets_are_read_and_matched(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("one\thttp\tG1\tG2\tg3\tnone\nsmall\tx\tG1\ntwo\tx\tG7\tG8\tG9\n")
    tokens = gene_sets.given_tokens(gene_sets.read_gmt(path), cases.NAMES)
    assert tokens.names == ["one", "two"]
    assert tokens.genes[0][tokens.member[0]].tolist() == [1, 2, 3]
    with pytest.raises(InputError, match=r"0 of 3 sets share 3 genes with the 2 genes used"):
        gene_sets.given_tokens(gene_sets.read_gmt(path), np.array(["X", "Y"]))
    path.write_text("one\thttp\n")
    with pytest.raises(InputError, match=r"sets.gmt, line 1: found 'one\\thttp'"):
        gene_sets.read_gmt(path)
    path.write_text("one\thttp\tG1\n")
    with pytest.raises(InputError, match="found 1 gene sets; expected at least two"):
        gene_sets.read_gmt(path)
    with pytest.raises(InputError, match="gene sets"):
        gene_sets.read_gmt(tmp_path / "none.gmt")


# ---------------------------------------------------------------------------------------------------- the tissue


def test_neighbours_on_the_tissue_stay_in_their_section():
    from histoweft.annotation.gnn import spatial_neighbours

    xy = np.array([[0, 0], [1, 0], [2, 0], [0, 0], [0.5, 0], [9, 9.0]])
    near = spatial_neighbours(xy, np.array(["a", "a", "a", "b", "b", "c"]), 2)
    assert near[:, 0].tolist() == list(range(6))
    assert near[0].tolist() == [0, 1, 2]
    assert set(near[3]) == {3, 4}
    assert near[5].tolist() == [5, 5, 5]


def test_the_tissue_helps_where_types_lie_in_patches():
    def section(seed):
        rng = np.random.default_rng(seed)
        found = cases.reference_of({"alpha": 150, "beta": 150}, seed=seed, fold=1.8)
        side = np.where(found.codes == 0, -1.0, 1.0)
        found.xy = np.column_stack([side * rng.uniform(0.2, 10, 300), rng.uniform(0, 10, 300)])
        return found

    train, test = section(1), section(2)
    accuracy = {}
    for spatial in (False, True):
        fitted = evaluate.train(train, "gnn", 200, 10, Options(spatial=spatial, epochs=10))
        cells = Cells(fitted.space.project(test.expression), Expression(test.expression), test.xy)
        accuracy[spatial] = (fitted.model.logits(cells).argmax(axis=1) == test.codes).mean()
        again = models.restore("gnn", fitted.model.state())
        assert (again.logits(cells) == fitted.model.logits(cells)).all()
    assert accuracy[True] > 0.93
    assert accuracy[True] > accuracy[False] + 0.05


def test_the_tissue_without_positions_is_refused(reference):
    with pytest.raises(HistoweftError, match=r"annotation.spatial is true, but the reference has no positions"):
        evaluate.train(reference, "gnn", 100, 10, Options(spatial=True))


# ---------------------------------------------------------------------------------------------------- held out


def test_every_cell_is_predicted_without_its_fold():
    reference = cases.reference_of(donors=3)
    plan = folds.plan_folds(reference.codes, reference.groups, 5, 0)
    found = evaluate.out_of_fold(reference, plan, "logistic", 100, 10, Options())
    fold = plan.folds[0]
    alone = evaluate.train(reference.rows(fold.train), "logistic", 100, 10, Options())
    cells = evaluate.cells_of(reference.rows(fold.test), alone.space)
    assert (found.logits[fold.test] == alone.model.logits(cells)).all()
    assert (found.distance[fold.test] == alone.distance(cells.scores)).all()
    assert (found.logits.argmax(axis=1) == reference.codes).mean() > 0.9
    assert found.seconds > 0
    assert found.peak_mb > 50


def test_types_left_out_stand_out_by_distance(reference):
    plan = folds.plan_folds(reference.codes, None, 3, 0)
    own = {name: name for name in reference.types}
    table = evaluate.leave_types_out(reference, plan.folds, own, 100, 10, Options())
    assert set(table["left_out"]) == {"alpha", "beta", "delta"}  # of the rare type too few cells are held out
    assert table["fold"].nunique() == 2
    mean = table.groupby("score")["auroc"].mean()
    assert mean["distance"] > 0.9
    assert mean["floor:probability"] > 0.6
    pairs = {"alpha": "x", "beta": "x", "delta": "y", "rare": "y"}
    assert set(evaluate.leave_types_out(reference, plan.folds, pairs, 100, 10, Options())["left_out"]) == {"x", "y"}


def test_nothing_is_left_out_of_two_types():
    reference = cases.reference_of({"alpha": 40, "beta": 40})
    plan = folds.plan_folds(reference.codes, None, 3, 0)
    table = evaluate.leave_types_out(reference, plan.folds, {n: n for n in reference.types}, 100, 5, Options())
    assert isinstance(table, pd.DataFrame)
    assert table.empty
    assert "auroc" in table


def test_blocks_in_memory_are_the_matrix():
    X = sp.random(9_000, 4, 0.5, format="csr", random_state=0)
    blocks = list(Expression(X).blocks())
    assert len(blocks) == 3
    assert (sp.vstack([block for _, block in blocks]) != X).nnz == 0
