"""Models of the atlas: what they are before training, what they learn, and what they never see."""

import types

import atlas_cases as cases
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

import torch

from histoweft.atlas import baselines, data, explain, field, fit, folds, multiscale, reference, residual, results
from histoweft.errors import HistoweftError, InputError
from histoweft.splits import Fold


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def prepared():
    """Return the first random fold of the simulated organ."""
    atlas = cases.atlas()
    return data.prepare(atlas, folds.make(atlas, "random", 3, 0.0, 0)[0], 100, 10.0)


# ------------------------------------------------------------------------------------------------------------ reference


def test_collapsed_decoder_is_the_two_layers(prepared):
    torch.manual_seed(0)
    model = reference.SpatialVAE(prepared, reference.Options(latent=8))
    latent = torch.randn(5, 8)
    direct = model.decode_genes(model.decode_hidden(latent))
    collapsed = model.decode(latent)
    assert torch.allclose(direct, collapsed, atol=1e-5)
    both = []
    for output in (direct, collapsed):
        model.zero_grad()
        output.square().sum().backward()
        both.append([model.decode_hidden.weight.grad.clone(), model.decode_genes.weight.grad.clone()])
    for first, second in zip(*both, strict=True):
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-4)


def test_reference_has_the_published_layers(prepared):
    model = reference.SpatialVAE(prepared, reference.Options(latent=200))
    shapes = [tuple(layer.weight.shape) for layer in model.encoder if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(1_000, 100), (500, 1_000)]
    assert [layer.p for layer in model.encoder if isinstance(layer, torch.nn.Dropout)] == [0.7]
    kinds = [type(layer).__name__ for layer in model.encoder]
    assert kinds[-3:] == ["BatchNorm1d", "LeakyReLU", "Dropout"]
    text = reference.SpatialVAE(prepared, reference.Options(latent=200, dropout=reference.BEFORE))
    assert [type(layer).__name__ for layer in text.encoder][-3:] == ["Dropout", "BatchNorm1d", "LeakyReLU"]
    assert model.decode_hidden.weight.shape == (500, 200)
    assert model.regress.weight.shape == (3, 200)
    planes = np.ptp(prepared.position, axis=0) + 1
    assert [head[-1].out_features for head in model.classify] == planes.astype(int).tolist()


def test_reference_loss_by_hand(prepared):
    options = reference.Options(latent=6, kl=0.5, classification=0.25, regression=2.0, bfloat16=False)
    torch.manual_seed(1)
    model = reference.SpatialVAE(prepared, options).eval()
    rows = np.arange(4)
    parts = [torch.from_numpy(part[rows]) for part in (prepared.values, prepared.least, prepared.span)]
    batch = (*parts, torch.from_numpy(prepared.position[rows]))
    with torch.no_grad():
        total, reconstruction = model.loss(batch)
        x, target = model.inputs(*parts)
        there = ~torch.isnan(target)
        mean, log_variance = model.encode(x)
        output, place = model.decode(mean), model.regress(mean) + model.origin
        heads = [head(mean) for head in model.classify]
    error = (np.where(there, (output - x).numpy(), 0.0) ** 2).sum() / 4
    assert float(reconstruction) == pytest.approx(error, rel=1e-4)
    kl = (0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)).sum() / 4
    squares = ((place - batch[3]) ** 2).sum() / 4
    plane = (batch[3] - model.origin).round().long()
    entropy = sum(torch.nn.functional.cross_entropy(head, plane[:, axis]) for axis, head in enumerate(heads))
    expected = error + 0.5 * kl + 2 * 2.0 * squares + 0.25 * entropy
    assert float(total) == pytest.approx(float(expected), rel=1e-4)


def test_gaps_cost_nothing_and_cannot_be_seen(prepared):
    model = reference.SpatialVAE(prepared, reference.Options(latent=6, bfloat16=False)).eval()
    rows = np.arange(6)
    values = prepared.values[rows].copy()
    values[:, :5] = np.nan
    parts = [torch.from_numpy(part[rows]) for part in (prepared.least, prepared.span, prepared.position)]
    with torch.no_grad():
        _, error = model.loss((torch.from_numpy(values), *parts))
        x, target = model.inputs(torch.from_numpy(values), *parts[:2])
        there = ~torch.isnan(target)
        output = model.decode(model.encode(x)[0])
    assert not there[:, :5].any()
    expected = ((output - x)[:, 5:][there[:, 5:]] ** 2).sum() / 6
    assert float(error) == pytest.approx(float(expected), rel=1e-4)


def test_squared_error_has_the_gradients_of_its_formula():
    torch.manual_seed(2)
    latent, weight, bias = (torch.randn(*shape, dtype=torch.double) for shape in ((5, 3), (7, 3), (7,)))
    target = torch.randn(5, 7, dtype=torch.double)
    target[torch.rand(5, 7) < 0.3] = float("nan")
    found = []
    for function in (reference._SquaredError.apply, _squared_error):
        parts = [part.clone().requires_grad_() for part in (latent, weight, bias)]
        value = function(*parts, target)
        (value / 5).backward()
        found.append([value.detach().double(), *(part.grad for part in parts)])
    for ours, formula in zip(*found, strict=True):
        assert torch.allclose(ours, formula, rtol=1e-5)


def _squared_error(latent, weight, bias, target):
    error = latent @ weight.T + bias - torch.nan_to_num(target)
    return (error[~torch.isnan(target)] ** 2).sum()


# ------------------------------------------------------------------------------------------------------------- residual


def test_the_network_starts_as_pca():
    network = residual.Network(30, 10, 0.0)
    scores = torch.randn(4, 30)
    latent, output, place = network(scores)
    assert torch.equal(latent, scores[:, :10])
    assert torch.equal(output[:, :10], scores[:, :10])
    assert not output[:, 10:].any()
    assert place.shape == (4, 3)


def test_the_network_beats_pca_where_components_hang_together():
    # Fifteen components are functions of three: PCA with a latent of three cannot know, a network can.
    atlas = cases.atlas(1_000)
    rng = np.random.default_rng(0)
    place = (atlas.folded() - atlas.folded().mean(axis=0)) / atlas.folded().std(axis=0)
    parts = [place, place**2 - 1, np.sin(2 * place), place[:, [0]] * place[:, 1:], np.cos(3 * place[:, :2])]
    signal = np.concatenate(parts, axis=1)
    expression = (signal @ rng.normal(size=(signal.shape[1], 60)) + 0.05 * rng.normal(size=(atlas.n, 60))) + 20
    whole = type(atlas)(
        expression.astype(np.float32), atlas.position, atlas.genes[:60], 200.0, atlas.shape, atlas.midline
    )
    split = folds.make(whole, "random", 3, 0.0, 0)[0]
    fold = data.prepare(whole, split, 60, 10.0)
    axes = data.principal_axes(fold, 12)
    scores = axes.project_all(fold)
    options = residual.Options(latent=4, epochs=25, patience=1.0)
    trained, run = residual.train(fold, axes, scores, options, seed=0)
    assert trained.gate
    assert trained.validation["network"] > trained.validation["pca"] + 0.05
    assert run.epochs == 25
    output, _, latent = trained.apply(scores[split.test])
    assert latent.shape == (len(split.test), 4)
    truth = scores[split.test]
    assert ((output - truth) ** 2).sum() < 0.8 * (truth[:, 4:] ** 2).sum()


# --------------------------------------------------------------------------------------------------- fields, multiscale


def test_fields_place_voxels_beyond_what_was_seen():
    rng = np.random.default_rng(0)
    z, y, x = (
        part.ravel().astype(float)
        for part in np.meshgrid(np.arange(30), np.arange(10), np.arange(-7, 8), indexing="ij")
    )
    folded = np.column_stack([z, y, np.abs(x)])
    waves = rng.normal(size=(12, 3)) * 0.12
    scores = np.cos(folded @ waves.T + rng.uniform(0, 6, 12)) + 0.02 * rng.normal(size=(len(z), 12))
    scores += 0.3 * np.sign(x)[:, None] * np.sin(folded @ rng.normal(size=(12, 3)).T * 0.08 + 1)
    test = (z >= 9) & (z < 21)
    train = np.flatnonzero(~test)
    inner = [
        Fold("a", train[z[train] > 4], train[z[train] <= 4]),
        Fold("b", train[z[train] < 25], train[z[train] >= 25]),
    ]
    place = {row: at for at, row in enumerate(train)}
    inner = [
        Fold(one.name, *(np.array([place[row] for row in part]) for part in (one.train, one.test))) for one in inner
    ]
    low, high = folded.min(axis=0), folded.max(axis=0)
    chart = field.fit_chart(scores[train], folded[train], inner, low, high, 1.0, np.where(x[train] >= 0, 1, -1))
    found, side = chart.locate(scores[test])
    distance = np.linalg.norm(found - folded[test], axis=1).mean()
    nearest = baselines.nearest_place(scores[train], folded[train], inner, scores[test])
    assert distance < 0.7 * np.linalg.norm(nearest - folded[test], axis=1).mean()
    away = np.abs(x[test]) > 0
    assert (side == np.sign(x[test]))[away].mean() > 0.9


def test_twins_are_told_from_regions_that_were_never_seen():
    rng = np.random.default_rng(0)
    position = np.argwhere(np.ones((40, 8, 8))).astype(float)
    smooth = np.cos(position @ rng.normal(size=(3, 12)) * 0.2 + rng.uniform(0, 6, 12))

    def scores():
        return smooth + 0.02 * rng.normal(size=smooth.shape)

    known, mirrored = scores(), scores()
    middle = (position[:, 0] >= 16) & (position[:, 0] < 24)
    apart = (position[:, 0] >= 14) & (position[:, 0] < 26)
    edges = [np.flatnonzero((part >= 32) if end else (part < 8)) for end in (0, 1) for part in [position[:, 0]]]
    rows = np.arange(len(known))
    assert baselines.has_twins(known, [Fold("a", np.setdiff1d(rows, edge), edge) for edge in edges], mirrored)
    rest = rows[~apart]
    inner = [Fold("a", *(np.flatnonzero(np.isin(rest, edge, invert=keep)) for keep in (True, False))) for edge in edges]
    assert not baselines.has_twins(known[rest], inner, known[middle])


@pytest.mark.parametrize(("protocol", "chosen"), [("random", "fields"), ("block", "nearest")])
def test_twins_are_asked_for_where_inner_folds_hold_out_regions(protocol, chosen, monkeypatch):
    monkeypatch.setattr(baselines, "has_twins", lambda *_: True)
    atlas = cases.atlas()
    whole = data.prepare(atlas, folds.make(atlas, protocol, 3, 0.0, 0)[0], 100, 10.0)
    task = fit._Task(whole, cases.OPTIONS, np.arange(3), 8, 0, "cpu", 1, None)
    scores = data.principal_axes(whole, 8).project_all(whole)
    lost = types.SimpleNamespace(position_error=1e9)
    _, facts = task._place(lost, scores, np.zeros((len(whole.split.test), 3)))
    assert facts["place"] == chosen


def test_nothing_is_lost_without_a_budget():
    rng = np.random.default_rng(0)
    position, scores = rng.uniform(0, 10, (101, 3)), rng.normal(size=(101, 7)).astype(np.float32)
    code = multiscale.learn(scores, position, 1e6)
    assert np.allclose(code.reconstruct(scores, position), scores, atol=1e-5)


def test_a_budget_is_kept_and_spent_on_what_varies():
    rng = np.random.default_rng(0)
    position = np.argwhere(np.ones((12, 12, 12))).astype(float)
    smooth = np.cos(position @ rng.normal(size=(3, 40)) * 0.15)
    rough = 3 * rng.normal(size=(len(position), 4))
    scores = np.column_stack([rough, smooth])
    code = multiscale.learn(scores, position, 8)
    tree = multiscale.Tree.grow(position)
    kept = code.kept(tree)
    spent = scores.shape[1] + sum(
        int(one.sum()) * int((np.minimum(*tree.splits_of(level)) > 0).sum()) for level, one in enumerate(kept)
    )
    assert spent <= 8 * len(position)
    assert kept[-1][:4].all()
    assert not kept[-1][4:].any()
    error = ((code.reconstruct(scores, position) - scores) ** 2).mean(axis=0)
    assert error[:4].max() < 1e-6
    # The four smooth components that eight numbers a voxel have room for, without space, leave 36 of 40 untold.
    assert error[4:].sum() < 0.25 * scores[:, 8:].var(axis=0).sum()


# ------------------------------------------------------------------------------------------------------------ baselines


def test_neighbours_and_discriminants_against_plain_loops():
    rng = np.random.default_rng(0)
    known, place, asked = rng.normal(size=(80, 4)), rng.normal(size=(80, 3)), rng.normal(size=(9, 4))
    found = baselines._neighbour_means(known, place, asked, (1, 5))
    for row, point in enumerate(asked):
        order = np.argsort(np.linalg.norm(known - point, axis=1))
        assert np.allclose(found[0][row], place[order[0]], atol=1e-5)
        assert np.allclose(found[1][row], place[order[:5]].mean(axis=0), atol=1e-5)
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    labels = (known[:, 0] + 0.3 * rng.normal(size=80) > 0).astype(int) + 2 * (known[:, 1] > 0.5)
    ours = baselines.classify(known, labels, asked)
    assert (ours == LinearDiscriminantAnalysis().fit(known, labels).predict(asked)).mean() > 0.85


# ------------------------------------------------------------------------------------------------------------------ fit


@pytest.fixture(scope="module")
def fitted():
    """Return results of all jobs of one block."""
    atlas = cases.atlas()
    split = folds.make(atlas, "block", 3, 1.5, 0)[0]
    return (
        atlas,
        split,
        {model: fit.fit_fold(atlas, split, model, cases.OPTIONS) for model in ("floors", "residual", "reference")},
    )


def test_every_method_is_there_for_every_held_out_voxel(fitted):
    _, split, found = fitted
    names = {model: [one.method for one in job.results] for model, job in found.items()}
    assert names["floors"] == ["floor:mean", "floor:pca", "floor:ridge", "floor:knn"]
    assert names["residual"] == ["residual", "multiscale"]
    for job in found.values():
        assert np.array_equal(job.test, split.test)
        for one in job.results:
            assert len(one.place) in (0, len(split.test))
            assert np.isfinite(one.place).all()
            if len(one.n):
                assert len(one.voxel_error) == len(split.test)
                assert one.shown.shape == job.truth.shape


def test_floors_do_not_see_held_out_voxels(fitted):
    atlas, split, found = fitted
    changed = atlas.expression.copy()
    half = split.test[::2]
    changed[half] = 7.0
    again = fit.fit_fold(type(atlas)(**(vars(atlas) | {"expression": changed})), split, "floors", cases.OPTIONS)
    kept = ~np.isin(split.test, half)
    for before, after in zip(found["floors"].results, again.results, strict=True):
        for name in ("place", "voxel_error"):
            first, second = getattr(before, name), getattr(after, name)
            assert not len(first) or np.allclose(first[kept], second[kept], atol=1e-3), (before.method, name)


def test_a_network_that_spoils_pca_is_left_out(fitted):
    _, _, found = fitted
    network, pca = found["residual"].results[0], found["floors"].results[1]
    if not network.facts["gate"]:
        assert np.allclose(network.error, pca.error, rtol=1e-3)
    else:
        assert network.facts["validation"]["network"] > network.facts["validation"]["pca"]


def test_the_same_seed_gives_the_same(fitted):
    atlas, split, found = fitted
    again = fit.fit_fold(atlas, split, "residual", cases.OPTIONS)
    assert np.array_equal(again.results[0].place, found["residual"].results[0].place)


def test_results_survive_a_file(fitted, tmp_path):
    _, _, found = fitted
    path = tmp_path / "fold.npz"
    results.write(path, found["residual"])
    back = results.read(path)
    for before, after in zip(found["residual"].results, back.results, strict=True):
        assert before.facts.keys() == after.facts.keys()
        assert np.array_equal(before.latent, after.latent)
        assert np.array_equal(before.error, after.error)
        assert list(before.regions) == list(after.regions)
        assert [epoch["epoch"] for epoch in before.history] == [epoch["epoch"] for epoch in after.history]
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a fold of the atlas stage.*Delete it"):
        results.read(path)


def test_an_unknown_model_is_named(fitted):
    atlas, split, _ = fitted
    with pytest.raises(HistoweftError, match="'magic' is not one of floors, residual"):
        fit.fit_fold(atlas, split, "magic", cases.OPTIONS)


def test_the_latent_is_never_more_than_the_data_allow():
    assert fit.latent_size(200, 84, 2_000) == 21
    assert fit.latent_size(200, 3_000, 100) == 25
    assert fit.latent_size(200, 3_000, 40_000) == 200


def test_pictured_genes_are_smooth_and_measured():
    atlas = cases.atlas()
    chosen = fit.pictured(atlas, 5)
    smooth = np.isin(np.arange(len(atlas.genes)), chosen)
    left = {tuple(place): row for row, place in enumerate(atlas.position)}
    pairs = [
        (row, left[key]) for row, place in enumerate(atlas.position) if (key := (*place[:2], place[2] + 1)) in left
    ]
    a, b = (np.nan_to_num(atlas.expression[list(side)]) for side in zip(*pairs, strict=True))
    r = np.array([np.corrcoef(a[:, gene], b[:, gene])[0, 1] for gene in range(a.shape[1])])
    assert r[smooth].min() > np.median(r)


# -------------------------------------------------------------------------------------------------------------- explain


def test_integrated_gradients_are_complete(prepared):
    axes = data.principal_axes(prepared, 30)
    scores = axes.project_all(prepared)
    trained, _ = residual.train(prepared, axes, scores, residual.Options(latent=10, epochs=5), seed=0)
    place = explain._Place(trained, 1, prepared.voxels.midline)
    asked = prepared.split.test[:20]
    gradient = explain.integrated_gradient(place, scores[asked], trained.scale)
    with torch.no_grad():
        change = place(torch.from_numpy(scores[asked] / trained.scale)) - place(torch.zeros(1, 30))
    assert np.allclose((gradient * scores[asked]).sum(axis=1), change.numpy(), atol=0.05)


def test_association_is_the_squared_correlation():
    rng = np.random.default_rng(0)
    values, target = rng.normal(size=(60, 3)), rng.normal(size=60)
    values[:, 0] += target
    values[5:9, 1] = np.nan
    expected = []
    for gene in values.T:
        there = ~np.isnan(gene)
        expected.append(np.corrcoef(gene[there], target[there])[0, 1] ** 2)
    assert np.allclose(explain.association(values, target), expected, atol=1e-6)


def test_planted_structure_genes_are_found():
    from histoweft.simulate.atlas import draw_atlas

    options = cases.OPTIONS | {"n_genes": 150, "latent": 12, "epochs": 10}
    genes, agreement = explain.explain(cases.atlas(900), options)
    truth = draw_atlas(0, 900).truth
    planted = dict(zip(truth["gene"], truth["structure"], strict=True))
    number = {"CTXs": 11, "CTXd": 12, "MEDl": 21, "MEDm": 22}
    structures = genes[genes["kind"] == "structure"]
    assert set(structures["target"]) == set(number)
    for target, part in structures.groupby("target"):
        of = part["gene"].map(planted) == number[target]
        assert explain.area_under_curve(of.to_numpy(), part["attribution"].to_numpy()) > 0.75, target
    assert (agreement[agreement["kind"] == "structure"]["auroc"] > 0.8).all()
