"""The yardstick: footprints on pixels, gene channels trained on them, spots and maps predicted by the same network."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from histoweft.errors import InputError  # noqa: E402
from histoweft.histology import folds, image_model  # noqa: E402
from histoweft.histology.autoencoder import MODELS, as_images, build  # noqa: E402
from histoweft.histology.image_model import (  # noqa: E402
    Picture,
    Scale,
    as_factored,
    crop_to_tissue,
    fit,
    footprint_matrix,
    painter,
    predict,
)  # fmt: skip
from histoweft.histology.spots import Spots  # noqa: E402
from histoweft.splits import Fold  # noqa: E402

KINDS = sorted(MODELS)
SIZE = 8.0


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def picture(height=90, width=110, seed=0, offset=(0, 0)):
    """Return an image of grey patches, 10 px wide, some dark and some bright."""
    random = np.random.default_rng(seed)
    patches = random.integers(60, 220, (height // 10 + 1, width // 10 + 1)).repeat(10, axis=0).repeat(10, axis=1)
    rgb = patches[:height, :width, None] * np.array([1.0, 0.8, 0.9]) + random.normal(0, 5, (height, width, 3))
    return Picture(np.clip(rgb, 0, 255).astype(np.uint8), offset, 2.0, np.ones((height, width), dtype=bool))


def grid(height, width, step=10):
    y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    return np.column_stack([x.ravel(), y.ravel()]).astype(float)


def study(pictures, n_genes=6, seed=0):
    """Return spots on a grid of each picture: genes 0 and 2 are high on dark and on bright patches, 5 is constant."""
    random = np.random.default_rng(seed)
    names, counts, where, xy = list(pictures), [], {}, []
    for name, one in pictures.items():
        at = grid(*one.rgb.shape[:2])
        light = (footprint_matrix(one, at, SIZE, False) @ one.rgb[..., 0].reshape(-1)) / 255
        means = np.full((len(at), n_genes), 600.0)
        means[:, 0], means[:, 2] = 200 + 1200 * (1 - light), 200 + 1200 * light
        drawn = random.poisson(means)
        drawn[:, 5] = 0
        counts.append(sp.csr_matrix(drawn, dtype=np.float32))
        where[name] = (at + np.array(one.offset[::-1]), SIZE, False)
        xy.append(at * one.um_per_px)
    number = np.repeat(np.arange(len(names)), [len(one) for one in xy])
    n = len(number)
    spots = Spots(
        samples=names, section=number, barcodes=np.arange(n).astype(str),
        genes=pd.Index([f"g{i}" for i in range(n_genes)]),
        counts=sp.vstack(counts, format="csr"), totals=np.full(n, 3000.0), xy=np.concatenate(xy),
        pixels=np.zeros((n, 1, 1), np.float16), registered=np.full((n, 2), np.nan), frame=np.full(n, "", object),
        features=["none"],
    )  # fmt: skip
    return spots, where


def goal_of(spots, train=None):
    train = np.arange(len(spots.xy)) if train is None else train
    test = np.setdiff1d(np.arange(len(spots.xy)), train)
    return folds.target(spots, Fold("fold", train, test), n_components=3)


# ----------------------------------------------------------------------------------------------------------- pictures


def test_the_crop_holds_tissue_and_whole_footprints():
    rgb = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    mask = np.zeros((200, 300), dtype=bool)
    mask[60:100, 120:180] = True
    spots = np.array([[150.0, 80.0], [250.0, 110.0]])
    found = crop_to_tissue(rgb, mask, spots, 21.0, 1.5, margin=10)
    assert found.offset == (50, 110)
    # The second spot reaches to row 120.5 and column 260.5.
    assert found.rgb.shape == (131 - 50, 271 - 110, 3)
    assert (found.rgb == rgb[50:131, 110:271]).all()
    assert (found.mask == mask[50:131, 110:271]).all()
    assert found.um_per_px == 1.5
    assert found.rgb.base is None
    whole = crop_to_tissue(rgb, mask, spots, 21.0, 1.5, margin=1000)
    assert (whole.offset, whole.rgb.shape) == ((0, 0), (200, 300, 3))
    alone = crop_to_tissue(rgb, np.zeros_like(mask), spots[:1], 21.0, 1.5, margin=0)
    assert (alone.offset, alone.rgb.shape) == ((69, 139), (22, 22, 3))


def test_a_crop_too_small_is_refused():
    rgb, mask = np.zeros((100, 100, 3), np.uint8), np.zeros((100, 100), bool)
    with pytest.raises(InputError, match=r"3 x 3 px of tissue and spots.*16 px at least.*Do image and positions fit"):
        crop_to_tissue(rgb, mask, np.array([[50.5, 50.5]]), 3.0, 1.0, margin=0)
    with pytest.raises(InputError, match="0 x 0 px of tissue and spots"):
        crop_to_tissue(rgb, mask, np.zeros((0, 2)), 3.0, 1.0)


# --------------------------------------------------------------------------------------------------------- footprints


@pytest.mark.parametrize("square", [False, True])
def test_footprints_are_what_a_loop_over_spots_and_pixels_finds(square, monkeypatch):
    monkeypatch.setattr(image_model, "_CANDIDATES", 700)
    one = picture(60, 80, offset=(7, 11))
    xy = np.random.default_rng(1).uniform([11, 7], [91, 67], (25, 2))
    found = footprint_matrix(one, xy, 7.3, square)
    assert found.shape == (25, 60 * 80)
    assert found.dtype == np.float32
    y, x = np.mgrid[7:67, 11:91] + 0.5
    for row, (cx, cy) in zip(found.toarray(), xy):
        inside = np.maximum(abs(x - cx), abs(y - cy)) if square else np.hypot(x - cx, y - cy)
        expected = (inside <= 3.65).ravel()
        np.testing.assert_allclose(row, expected / expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_a_footprint_without_a_pixel_gets_the_nearest():
    one = picture(40, 50)
    found = footprint_matrix(one, np.array([[10.9, 20.1], [-5.0, 3.2], [49.9, 80.0]]), 0.2, False)
    assert found.sum(axis=1) == pytest.approx(1)
    assert found.indices.tolist() == [20 * 50 + 10, 3 * 50, 39 * 50 + 49]
    bins = footprint_matrix(one, grid(40, 50, 2), 2.0, True)
    assert (np.diff(bins.indptr) == 4).all()  # bins side by side share no pixel and leave none out
    assert len(np.unique(bins.indices)) == 40 * 50
    assert footprint_matrix(one, np.zeros((0, 2)), 2.0, True).shape == (0, 2000)


# ---------------------------------------------------------------------------------------------------------- prediction


def scale_of(n, genes=None):
    genes = np.arange(n) if genes is None else genes
    return Scale(genes, np.linspace(3, 4, n).astype(np.float32), np.linspace(0.2, 0.5, n).astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_spots_are_the_means_of_the_maps_however_large_the_picture(kind, monkeypatch):
    model, one = build(kind, n_genes=4).eval(), picture(150, 170, offset=(20, 30))
    monkeypatch.setattr(image_model, "_WINDOW", 64)
    matrix = footprint_matrix(one, grid(150, 170) + np.array([30, 20]), SIZE, False)
    scale = scale_of(4)
    assert len(image_model._windows(model, one, matrix)) == 9
    found = predict(model, one, matrix, scale)
    with torch.no_grad():
        maps = model(as_images(one.rgb))[1][0].flatten(1).numpy()
    expected = matrix @ maps.T * scale.spread + scale.mean
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert found.dtype == np.float32
    assert predict(model, one, matrix[:0], scale).shape == (0, 4)


def test_footprints_of_another_picture_are_refused():
    model, one = build("autoencoder", n_genes=2), picture(40, 50)
    matrix = footprint_matrix(picture(40, 60), grid(40, 60), SIZE, False)
    with pytest.raises(ValueError, match="2400 pixels, but the picture has 40 x 50"):
        predict(model, one, matrix, scale_of(2))


@pytest.mark.parametrize("kind", KINDS)
def test_painted_windows_fit_together(kind):
    model, one = build(kind, n_genes=3).eval(), picture(90, 110, offset=(20, 30))
    scale = scale_of(3, np.array([7, 2, 9]))
    paint = painter(model, one, scale, [9, 7])
    with torch.no_grad():
        maps = model(as_images(one.rgb))[1][0].numpy()
    expected = np.zeros((2, 130, 160), np.float32)
    for row, channel in enumerate([2, 0]):
        painted = maps[channel] * scale.spread[channel] + scale.mean[channel]
        expected[row, 20:110, 30:140] = np.maximum(painted, 0)
    for rows in (slice(0, 57), slice(57, 130)):
        for cols in (slice(0, 10), slice(10, 93), slice(93, 160)):
            found = paint(rows, cols)
            np.testing.assert_allclose(found, expected[:, rows, cols], rtol=1e-4, atol=1e-4)
    assert (paint(slice(120, 130), slice(0, 20)) == 0).all()


def test_a_gene_that_was_not_learned_cannot_be_painted():
    with pytest.raises(InputError, match=r"1 genes that this network did not learn \(columns 3\).*some of its 2"):
        painter(build("autoencoder", n_genes=2), picture(), scale_of(2), [1, 3])


def test_genes_that_were_not_predicted_are_at_their_mean():
    values = np.array([[1.0, 2.0], [3.0, 5.0]])
    mean = np.array([0.5, 1.5, 2.5, 3.5])
    found = as_factored(values, np.array([3, 1]), 4, mean)
    assert found.shape == (2, 4)
    np.testing.assert_allclose(found.genes(slice(None)), [[0.5, 2, 2.5, 1], [0.5, 5, 2.5, 3]])
    np.testing.assert_allclose(found.genes(np.array([3])), [[1], [3]])
    assert sp.issparse(found.right)


# ------------------------------------------------------------------------------------------------------------ training


def test_gene_channels_learn_what_the_image_shows_and_leave_the_given_network_alone():
    pictures = {"a": picture(seed=0), "b": picture(100, 90, seed=1, offset=(3, 5))}
    spots, where = study(pictures)
    # Section b is counted deeper: a matter of the section, not of its image.
    spots.counts[spots.section == 1] *= 3
    train = np.flatnonzero((spots.section == 0) | (spots.xy[:, 1] < 120))
    goal = goal_of(spots, train)
    genes = np.array([2, 0, 5])
    given = build("encoder")
    before = {name: value.clone() for name, value in given.state_dict().items()}
    model, run, scale = fit(given, pictures, spots, where, goal, genes, epochs=60, lr=1e-2, seed=0)
    assert given.n_genes == 0
    assert all(torch.equal(before[name], value) for name, value in given.state_dict().items())
    assert run.epochs == run.best_epoch == 60
    assert {"train_loss"} < set(run.history[0])
    assert "val_loss" not in run.history[0]
    np.testing.assert_allclose(scale.mean, goal.expression[:, genes].toarray().mean(axis=0), rtol=1e-5)
    at, size, square = where["b"]
    found = predict(model, pictures["b"], footprint_matrix(pictures["b"], at, size, square), scale)
    own = spots.section == 1
    truth = spots.normalised(goal.median_total)[own][:, genes].toarray()
    test = ~np.isin(np.flatnonzero(own), train)
    assert test.sum() > 20
    for column in (0, 1):
        assert np.corrcoef(found[test, column], truth[test, column])[0, 1] > 0.6
    assert scale.spread[2] == 1


def test_gene_channels_start_as_a_ridge_regression_on_what_the_last_layer_sees():
    pictures = {"a": picture(seed=0), "b": picture(seed=1)}
    spots, where = study(pictures)
    goal, genes = goal_of(spots), np.array([2, 0, 5])
    # So low a rate that nothing is learned.
    model, _, scale = fit(build("encoder"), pictures, spots, where, goal, genes, epochs=1, lr=1e-12, seed=0)
    found, seen = [], []
    for name, one in pictures.items():
        matrix = footprint_matrix(one, *where[name])
        found.append((predict(model, one, matrix, scale) - scale.mean) / scale.spread)
        with torch.no_grad():
            hidden = torch.nn.functional.interpolate(model.hidden(as_images(one.rgb)), scale_factor=2)
        flat = hidden[0, :, : one.rgb.shape[0], : one.rgb.shape[1]].flatten(1).numpy()
        seen.append(matrix @ flat.T)
    X, Y = np.concatenate(seen), image_model._standardise(goal, genes, spots.section)[1]
    Z = X - X.mean(axis=0)
    gram = Z.T @ Z
    slope = np.linalg.solve(gram + 0.01 * np.diag(gram).mean() * np.eye(len(gram)), Z.T @ Y)
    np.testing.assert_allclose(np.concatenate(found), Z @ slope, atol=2e-3)
    assert np.corrcoef((Z @ slope)[:, 0], Y[:, 0])[0, 1] > 0.3


def test_targets_are_standardised_within_sections():
    pictures = {"a": picture(seed=0), "b": picture(seed=1)}
    spots, _ = study(pictures)
    spots.counts[spots.section == 1] *= 2
    goal = goal_of(spots)
    scale, targets = image_model._standardise(goal, np.array([0, 2, 5]), spots.section)
    for number in (0, 1):
        np.testing.assert_allclose(targets[spots.section == number].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(targets.std(axis=0), [1, 1, 0], atol=1e-4)
    assert scale.mean[0] > scale.spread[0] > 0


def test_training_stops_early_on_a_part_it_does_not_learn_from(monkeypatch):
    pictures = {"a": picture(seed=0)}
    spots, where = study(pictures)
    goal = goal_of(spots)
    seen = {True: [], False: []}
    add = image_model._Batches.add

    def watch(self, model, picture, matrix, targets):
        seen[self._shuffle].append(matrix)
        add(self, model, picture, matrix, targets)

    monkeypatch.setattr(image_model._Batches, "add", watch)
    options = {"epochs": 12, "patience": 2, "lr": 0.1, "seed": 0}
    model, run, _ = fit(build("autoencoder"), pictures, spots, where, goal, np.array([0, 2]), **options)
    assert run.epochs == min(run.best_epoch + 2, 12)
    assert {"val_loss", "val_ssim"} < set(run.history[0])
    assert run.best_score == pytest.approx(min(one["val_loss"] for one in run.history))
    (learned,), (judged,) = seen[True], seen[False]
    whole = footprint_matrix(pictures["a"], *where["a"])
    assert (learned != whole[goal.parts != 0]).nnz == 0
    assert (judged != whole[goal.parts == 0]).nnz == 0
    again, run_again, _ = fit(build("autoencoder"), pictures, spots, where, goal, np.array([0, 2]), **options)
    assert run_again.epochs > 0
    assert again.n_genes == model.n_genes == 2


def test_the_same_seed_gives_the_same_network():
    pictures = {"a": picture(60, 70, seed=0), "b": picture(60, 70, seed=1)}
    spots, where = study(pictures)
    goal, given = goal_of(spots), build("encoder")
    one, two, other = (
        fit(given, pictures, spots, where, goal, np.array([0]), epochs=2, seed=seed)[0].state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_what_does_not_fit_together_is_refused():
    pictures = {"a": picture(60, 70), "b": picture(60, 70, seed=1)}
    spots, where = study(pictures)
    goal, genes = goal_of(spots), np.array([0])
    with pytest.raises(InputError, match=r"section b.*no image"):
        fit(build("encoder"), {"a": pictures["a"]}, spots, where, goal, genes, epochs=1, seed=0)
    short = where | {"b": (where["b"][0][:-1], SIZE, False)}
    with pytest.raises(ValueError, match="41 positions for the 42 spots of b"):
        fit(build("encoder"), pictures, spots, short, goal, genes, epochs=1, seed=0)
    # A section without training spots needs no picture.
    alone = goal_of(spots, np.flatnonzero(spots.section == 0))
    model, _, _ = fit(build("encoder"), {"a": pictures["a"]}, spots, where, alone, genes, epochs=1, seed=0)
    assert model.n_genes == 1
