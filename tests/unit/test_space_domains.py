"""Domains: views, tied mixtures, the vote, floors and their scores, on a planted tissue."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from space_cases import LAYERS, hexagonal, planted_counts, write_section

from histoweft.errors import InputError, NotComputed
from histoweft.metrics import adjusted_rand_index
from histoweft.space import domain_scores, domains, views


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return two planted sections with a batch effect: tissue and layers of all points."""
    folder = tmp_path_factory.mktemp("sections")
    layer = [write_section(folder / f"{s}.h5ad", s, seed, batch=0.4) for seed, s in enumerate(("a", "b"))]
    return views.read_tissue({s: folder / f"{s}.h5ad" for s in ("a", "b")}), np.concatenate(layer)


@pytest.fixture(scope="module")
def found(study):
    return domains.find_domains(study[0], LAYERS, seed=0)


# ------------------------------------------------------------------------------------------------------- views


def test_planted_markers_are_the_most_spatially_variable(study):
    tissue, _ = study
    first = {int(name[1:]) for name in tissue.genes[: 15 * LAYERS]}
    assert len(first & set(range(15 * LAYERS))) > 0.9 * 15 * LAYERS
    assert (np.diff(tissue.moran) <= 0).all()


def test_moran_equals_the_textbook_sum(study):
    tissue, _ = study
    near = views.nearest(tissue.sections[0].xy, 6)
    found = []
    for values in tissue.values:
        x = values[:, 3].toarray().ravel().astype(float)
        z = x - x.mean()
        found.append((z[:, None] * z[near]).mean(axis=1).sum() / (z**2).sum())
    assert tissue.moran[3] == pytest.approx(np.mean(found), abs=1e-6)


def test_nearest_leaves_out_the_point_and_takes_the_first_ring():
    xy = hexagonal()
    near = views.nearest(xy, 6)
    inner = (np.abs(xy - xy.mean(axis=0)) < 800).all(axis=1)
    gaps = np.hypot(*(xy[near[inner]] - xy[inner][:, None, :]).transpose(2, 0, 1))
    assert np.allclose(gaps, 100, rtol=0.01)
    assert (near != np.arange(len(xy))[:, None]).all()


def test_nearest_of_points_at_one_place_never_is_the_point_itself():
    near = views.nearest(np.zeros((40, 2)), 3)
    assert near.shape == (40, 3)
    assert (near != np.arange(40)[:, None]).all()


def test_averaging_is_the_mean_over_a_point_and_its_neighbours(study):
    near = study[0].near[0]
    x = np.random.default_rng(0).normal(size=len(near)).astype(np.float32)
    expected = (x + x[near[:, :8]].sum(axis=1)) / 9
    assert np.allclose(views.averaging(near, 8) @ x, expected, atol=1e-6)


def test_a_view_is_the_pca_of_averaged_genes(study):
    tissue, _ = study
    view = views.View(50, False, 8)
    scores = next(iter(views.iterate_views(tissue, [view], depth=5)))[1]
    parts = []
    for values, near in zip(tissue.values, tissue.near):
        smooth = views.averaging(near, 8) @ values[:, :50].toarray()
        parts.append(smooth - smooth.mean(axis=0))
    expected = np.linalg.svd(np.concatenate(parts), full_matrices=False)[1][:5]
    assert np.allclose(np.linalg.norm(scores, axis=0), expected, rtol=1e-3)
    for span in tissue.spans:
        assert np.allclose(scores[span].mean(axis=0), 0, atol=1e-4)


def test_genes_are_matched_by_id_when_symbols_differ():
    one = pd.DataFrame({"gene_id": ["1", "2", "3", "4", "5"]}, index=list("ABCDE"))
    other = pd.DataFrame({"gene_id": ["5", "4", "3", "2", "9"]}, index=list("VWXYZ"))
    genes, columns = views.shared_genes({"a": one, "b": other})
    assert list(genes) == list("BCDE")
    assert columns[1].tolist() == [3, 2, 1, 0]


def test_too_few_shared_genes_say_what_each_section_has():
    one, other = pd.DataFrame(index=list("ABCDE")), pd.DataFrame(index=list("VWXYZ"))
    with pytest.raises(InputError, match=r"0 shared; s1 has 5 \(e.g. A\), s2 has 5 \(e.g. V\)"):
        views.shared_genes({"s1": one, "s2": other})


def test_rows_are_drawn_in_proportion_and_never_more_than_there_are():
    drawn = views.draw_rows([300, 40_000, 60_000], 0, most=10_000)
    assert [len(rows) for rows in drawn] == [300, 3_988, 5_982]
    assert all(len(np.unique(rows)) == len(rows) for rows in drawn)
    assert [len(rows) for rows in views.draw_rows([30, 40], 0)] == [30, 40]


# ---------------------------------------------------------------------------------------------------- mixtures


def test_tied_mixture_equals_scikit_learn_from_the_same_start():
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(0)
    spread = np.linalg.cholesky([[2.0, 1.2], [1.2, 1.0]])
    centres = np.array([[0, 0], [4, -3], [-4, 3.5]])
    points = np.concatenate([rng.normal(size=(200, 2)) @ spread.T + centre for centre in centres])
    points -= points.mean(axis=0)
    ours = domains.tied_mixture(points, 3, seed=1)
    theirs = GaussianMixture(3, covariance_type="tied", random_state=1, tol=1e-3).fit(points)
    assert adjusted_rand_index(ours.assign(points), theirs.predict(points)) > 0.99
    assert ours.log_likelihood == pytest.approx(theirs.score(points), abs=5e-3)


def test_agreement_is_the_adjusted_rand_index():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, 300), rng.integers(0, 5, 300)
    other[:200] = (one[:200] + 1) % 5
    assert domains.agreement(one, other, 5) == pytest.approx(adjusted_rand_index(one, other))
    assert domains.agreement(one, one, 5) == 1


def test_vote_undoes_the_numbering_and_outvotes_noise():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 100)
    runs = []
    for _ in range(9):
        noisy = np.where(rng.random(400) < 0.3, rng.integers(0, 4, 400), truth)
        runs.append(rng.permutation(4)[noisy])
    votes = domains.vote(np.array(runs, dtype=np.int16), 4)
    assert np.allclose(votes.sum(axis=1), 1)
    assert adjusted_rand_index(votes.argmax(axis=1), truth) > 0.95
    assert max(adjusted_rand_index(run, truth) for run in runs) < 0.75


def test_even_out_turns_a_lone_doubtful_point_and_keeps_a_sure_one():
    n = 25
    ring = sp.csr_matrix((np.full(2 * n, 0.5), (np.repeat(np.arange(n), 2), (np.arange(2 * n) // 2 + [1, -1] * n) % n)))
    votes = np.tile([1.0, 0.0], (n, 1))
    votes[5], votes[15] = [0.45, 0.55], [0.0, 1.0]
    labels = domains.even_out(votes, ring)
    assert labels[5] == 0
    assert labels[15] == 1
    assert labels.sum() == 1


# ----------------------------------------------------------------------------------------------------- domains


def test_planted_layers_are_found_in_both_sections_with_the_same_numbers(study, found):
    tissue, layer = study
    assert adjusted_rand_index(found.labels, layer) > 0.85
    for span in tissue.spans:
        assert adjusted_rand_index(found.labels[span], layer[span]) > 0.85


def test_domains_are_numbered_by_size_and_votes_follow(found):
    sizes = np.bincount(found.labels)
    assert (np.diff(sizes) <= 0).all()
    sure = found.confidence > 0.6
    assert sure.mean() > 0.7
    assert (found.votes.argmax(axis=1)[sure] == found.labels[sure]).all()


def test_a_domain_that_its_neighbours_take_over_leaves_no_gap_in_the_numbers():
    n = 40
    near = views.nearest(np.column_stack([np.arange(n), np.zeros(n)]), 4)
    runs = np.array([np.repeat([0, 1], n // 2)] * 5, dtype=np.int16)
    runs[0, 10] = 2
    found = domains.consensus(runs, 3, domains.neighbours_within(near))
    assert set(found.labels) == {0, 1}
    assert found.votes.shape == (n, 3)
    assert found.confidence[10] == pytest.approx(0.8)


def test_same_seed_same_domains_and_other_seeds_almost(study, found):
    tissue, _ = study
    again = domains.find_domains(tissue, LAYERS, seed=0)
    assert (again.labels == found.labels).all()
    assert adjusted_rand_index(domains.find_domains(tissue, LAYERS, seed=7).labels, found.labels) > 0.9


def test_the_number_of_layers_is_estimated(study):
    table = domains.estimate_number(study[0])
    assert domains.chosen_number(table, None) == LAYERS
    assert domains.chosen_number(table, 9) == 9


@pytest.mark.parametrize("n", [1, 500])
def test_impossible_numbers_are_refused(study, n):
    with pytest.raises(InputError, match=r"space.domains.n: found .*2 to 230"):
        domains.find_domains(study[0], n)


def test_floors_find_what_they_can(study):
    tissue, layer = study
    blind = domains.blind_scores(tissue)
    leiden = domains.leiden_floor(blind, LAYERS)
    smooth = domains.smoothed_pca_floor(tissue, blind, LAYERS)
    assert abs(leiden.max() + 1 - LAYERS) <= 1
    assert 0.2 < adjusted_rand_index(leiden, layer)
    assert adjusted_rand_index(smooth, layer) > 0.6


def test_tables_hold_the_method_that_was_selected(study, found):
    tissue, _ = study
    floor = np.arange(len(found.labels)) % 3
    tables = domains.domain_tables(tissue, found, {"leiden": floor}, "leiden")
    assert list(tables) == ["a", "b"]
    assert list(tables["b"].index) == list(tissue.barcodes[1])
    assert (tables["a"]["domain"] == tables["a"]["leiden"]).all()
    assert list(tables["a"]["domain"].cat.categories) == ["1", "2", "3"]
    own = tables["b"]["consensus"].cat.codes.to_numpy()
    assert (own == found.labels[tissue.spans[1]]).all()


# ------------------------------------------------------------------------------------------------------ scores


def test_rows_give_each_section_and_their_mean(study, found):
    tissue, layer = study
    truth = {s: pd.Series(layer[span]) for s, span in zip(tissue.samples, tissue.spans)}
    runs = {"consensus": np.array([found.labels, found.labels]), "leiden": np.array([layer, layer])}
    rows = pd.DataFrame(domain_scores.domain_rows(tissue, runs, truth, "st", "consensus", LAYERS))
    assert set(rows["method"]) == {"consensus", "floor:leiden"}
    assert set(rows["sample"]) == {"a", "b", "all"}
    perfect = rows[rows["method"] == "floor:leiden"]
    assert (perfect["value"] == 1).all()
    mine = rows[rows["method"] == "consensus"].set_index("sample")
    assert mine.loc["all", "value"] == pytest.approx(mine.loc[["a", "b"], "value"].mean())
    assert mine["note"].str.startswith("default").all()
    assert not perfect["note"].str.contains("default").any()


def test_a_verdict_says_when_a_floor_wins(study, found):
    tissue, layer = study
    truth = {s: pd.Series(layer[span]) for s, span in zip(tissue.samples, tissue.spans)}
    runs = {"consensus": found.labels[None], "leiden": layer[None], "smoothed_pca": found.labels[None]}
    rows = pd.DataFrame(domain_scores.domain_rows(tissue, runs, truth, "st", "consensus", LAYERS))
    said = domain_scores.verdict(rows)
    assert said["default"] == "leiden"
    assert "consensus loses to leiden" in said["warnings"][0]
    fine = domain_scores.verdict(rows[rows["method"] != "floor:leiden"])
    assert fine["default"] == "consensus"
    assert not fine["warnings"]


def test_without_labels_nothing_is_scored():
    observed = {"a": pd.DataFrame({"n": [1] * 4}), "b": pd.DataFrame({"label": [None, None, "y", "x", None]})}
    near = [np.zeros((len(table), 1), int) for table in observed.values()]
    labels, notes = domain_scores.expert_labels(observed, near)
    assert labels == {}
    assert notes == ["b: 40% of the points have a label: domains are not scored"]
    rows = pd.DataFrame(columns=["task", "metric", "sample", "method", "value", "note", "panel"])
    assert "not scored" in domain_scores.verdict(rows)["texts"][0]


def test_labels_of_cell_types_are_told_from_regions(study):
    tissue, layer = study
    span, near = tissue.spans[0], tissue.near[0]
    types = pd.Series(np.random.default_rng(0).integers(0, 4, len(near)).astype(str))
    assert domain_scores.shared_with_neighbours(types, near) == pytest.approx(0.25, abs=0.03)
    observed = {"regions": pd.DataFrame({"label": layer[span].astype(str)}), "types": pd.DataFrame({"label": types})}
    labels, notes = domain_scores.expert_labels(observed, [near, near])
    assert list(labels) == ["regions"]
    assert "types: labels look like cell types" in notes[0]


def test_scores_are_drawn_with_and_without_labels(study, found, tmp_path):
    from PIL import Image

    from histoweft.metrics import check_metrics, read_metrics, write_metrics
    from histoweft.space.domain_figures import scores_figure

    tissue, layer = study
    truth = {s: pd.Series(layer[span]) for s, span in zip(tissue.samples, tissue.spans)}
    runs = {"consensus": np.array([found.labels, layer])}
    rows = check_metrics(pd.DataFrame(domain_scores.domain_rows(tissue, runs, truth, "st", "consensus", LAYERS)))
    numbers = domains.estimate_number(tissue, most=5)
    scores_figure(rows, numbers, tmp_path / "with.png")
    write_metrics([], tmp_path / "none.tsv")
    scores_figure(read_metrics(tmp_path / "none.tsv"), numbers, tmp_path / "without.png")
    wide, narrow = (Image.open(tmp_path / f"{name}.png").width for name in ("with", "without"))
    assert wide > 1.5 * narrow


def test_a_section_without_positions_is_named(tmp_path):
    from histoweft.io import CsrWriter

    _, _, counts = planted_counts()
    names = [f"G{number}" for number in range(counts.shape[1])]
    with CsrWriter(tmp_path / "x.h5ad", counts.shape[1]) as writer:
        writer.append(counts)
        obs = pd.DataFrame(index=[f"c{number}" for number in range(counts.shape[0])])
        writer.finish(obs, pd.DataFrame(index=names))
    with pytest.raises(InputError, match="no coordinates"):
        views.read_tissue({"x": tmp_path / "x.h5ad"})


def test_sections_of_a_few_points_are_named_and_none_left_is_no_fault():
    assert views.too_few({"a": 9, "b": 10}) == {
        "a": "a has 9 barcodes, domains need 10 or more. Option: expression.qc."
    }  # fmt: skip
    with pytest.raises(NotComputed, match="no section has the 10 barcodes"):
        views.too_few({"a": 9})
