"""Similarity, the networks of pixels, what they are trained for, and pretraining."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from histoweft.errors import InputError  # noqa: E402
from histoweft.histology.autoencoder import (  # noqa: E402
    MODELS,
    Autoencoder,
    Encoder,
    as_images,
    as_tensor,
    build,
    load,
    pool,
    quarter,
    save,
)  # fmt: skip
from histoweft.histology.objectives import GeneTraining  # noqa: E402
from histoweft.histology.pretrain import _Crops, pretrain  # noqa: E402
from histoweft.histology.ssim import ssim, ssim_map  # noqa: E402
from histoweft.training import fit  # noqa: E402

KINDS = sorted(MODELS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def tissue(side=160, seed=0):
    """Return an image with dark nuclei on a pink ground that grows darker to the right."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    image = np.ones((side, side, 3)) * [0.9, 0.75, 0.85] - 0.2 * (x / side)[..., None]
    for cy, cx in random.uniform(0, side, (side * side // 60, 2)):
        y0, x0 = max(0, int(cy) - 4), max(0, int(cx) - 4)
        part = np.s_[y0 : y0 + 9, x0 : x0 + 9]
        inside = (y[part] - cy) ** 2 + (x[part] - cx) ** 2 < 6
        image[part][inside] = [0.35, 0.25, 0.55]
    return (255 * np.clip(image, 0, 1)).astype(np.uint8)


def tiles(side=160, step=32, size=40):
    corners = [(y, x) for y in range(0, side - size + 1, step) for x in range(0, side - size + 1, step)]
    boxes = [(y, y + size, x, x + size, True) for y, x in corners]
    return pd.DataFrame(boxes, columns=["y0", "y1", "x0", "x1", "kept"])


def footprints(height, width, n=12, radius=6, seed=1):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    rows = []
    for cy, cx in random.uniform(radius, [height - radius, width - radius], (n, 2)):
        disc = ((y - cy) ** 2 + (x - cx) ** 2 < radius**2).ravel().astype(float)
        rows.append(disc / disc.sum())
    return sp.csr_matrix(np.array(rows))


@pytest.mark.parametrize(("window", "sigma", "data_range"), [(11, 1.5, 1.0), (9, 1.0, 2.0)])
def test_similarity_equals_scikit_image(window, sigma, data_range):
    from skimage.metrics import structural_similarity

    a = tissue(64)[:, :50].astype(np.float32) / 255
    b = np.clip(a + 0.1 * np.random.default_rng(0).normal(size=a.shape), 0, 1).astype(np.float32)
    expected = structural_similarity(
        a,
        b,
        channel_axis=2,
        gaussian_weights=True,
        use_sample_covariance=False,
        win_size=window,
        sigma=sigma,
        data_range=data_range,
    )
    given = [torch.from_numpy(one.transpose(2, 0, 1))[None] for one in (a, b)]
    assert float(ssim(*given, window, sigma, data_range)) == pytest.approx(expected, abs=1e-4)
    assert ssim_map(*given, window, sigma).shape == (1, 3, 65 - window, 51 - window)
    assert float(ssim(given[0], given[0])) == pytest.approx(1)


def test_similarity_strip_by_strip_has_the_gradient_of_the_whole(monkeypatch):
    monkeypatch.setattr("histoweft.histology.ssim._STRIP", 1)
    b = torch.rand(2, 3, 150, 20)
    a = (b + 0.1 * torch.randn(b.shape)).requires_grad_()
    b.requires_grad_()
    value, whole = ssim(a, b), ssim_map(a, b).mean()
    torch.testing.assert_close(value, whole)
    found = torch.autograd.grad(2 * value, [a, b])
    for one, two in zip(found, torch.autograd.grad(2 * whole, [a, b])):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-7)
    (only,) = torch.autograd.grad(ssim(a.detach(), b), [b])
    torch.testing.assert_close(only, found[1] / 2)
    with torch.inference_mode():
        torch.testing.assert_close(ssim(a, b), whole)


def test_similarity_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="of one shape"):
        ssim(torch.zeros(1, 3, 20, 20), torch.zeros(1, 3, 20, 21))
    with pytest.raises(ValueError, match=r"11 px in \(20, 8\) px"):
        ssim(torch.zeros(1, 3, 20, 8), torch.zeros(1, 3, 20, 8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (37, 51), (5, 20)])
def test_any_size_of_image_fits(kind, size):
    model = build(kind, n_genes=4)
    rgb, genes = model(torch.rand(2, 3, *size))
    assert rgb.shape == (2, 3, *size)
    assert genes.shape == (2, 4, *size)
    assert float(rgb.detach().min()) >= 0
    assert float(rgb.detach().max()) <= 1
    for stride in (1, 2, 4, 16, 32):
        found = model.features(torch.rand(1, 3, *size), stride)
        assert found.shape[2:] == (-(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_with_its_margin_gives_what_the_whole_image_gives(kind):
    model = build(kind, n_genes=2).eval()
    x = torch.rand(1, 3, 192, 192)
    margin, at = model.margin, 64
    assert margin % model.stride == 0
    window = x[..., at - margin : at + 64 + margin, at - margin : at + 64 + margin]
    with torch.inference_mode():
        whole, part = torch.cat(model(x), 1), torch.cat(model(window), 1)
        wide, narrow = model.features(x, 4), model.features(window, 4)
    inside = slice(margin, margin + 64)
    torch.testing.assert_close(part[..., inside, inside], whole[..., at : at + 64, at : at + 64])
    cells = slice(margin // 4, margin // 4 + 16)
    torch.testing.assert_close(narrow[..., cells, cells], wide[..., at // 4 : at // 4 + 16, at // 4 : at // 4 + 16])


def test_the_autoencoder_has_the_shape_of_the_reference():
    layers = [one for one in Autoencoder(5).modules() if hasattr(one, "in_channels")]
    convolutions = [(one.in_channels, one.out_channels) for one in layers]
    assert convolutions == [(3, 16), (16, 32), (32, 64), (64, 128), (128, 64), (64, 32), (32, 16), (16, 8)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_gene_head_leaves_the_image_as_it_was(kind):
    model = build(kind).eval()
    x = torch.rand(1, 3, 32, 32)
    before = model(x)[0]
    model.add_gene_head(7, seed=1)
    after, genes = model(x)
    torch.testing.assert_close(after, before)
    assert genes.shape == (1, 7, 32, 32)
    assert float(genes.detach().std()) > 0
    first = model.head.weight.clone()
    model.add_gene_head(7, seed=1)
    assert torch.equal(model.head.weight, first)
    model.add_gene_head(7, seed=2)
    assert not torch.equal(model.head.weight, first)


@pytest.mark.parametrize("kind", KINDS)
def test_footprints_averaged_before_the_last_layer_give_the_means_of_the_painted_genes(kind):
    height, width = 50, 70
    model = build(kind, n_genes=5)
    x, spots = torch.rand(1, 3, height, width), footprints(height, width)
    genes = model(x)[1][0]
    by_loop = torch.stack([(genes.flatten(1) * torch.from_numpy(row.toarray()[0]).float()).sum(1) for row in spots])
    torch.testing.assert_close(pool(genes, as_tensor(spots)), by_loop)
    folded = model.pooled_genes(model.hidden(x), quarter(spots, height, width, model.stride))
    torch.testing.assert_close(folded, by_loop, rtol=1e-4, atol=1e-5)
    wanted = torch.autograd.grad(pool(genes, as_tensor(spots)).square().sum(), model.stages[0].parameters())
    loss = model.pooled_genes(model.hidden(x), quarter(spots, height, width, model.stride)).square().sum()
    for one, two in zip(wanted, torch.autograd.grad(loss, model.stages[0].parameters())):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="3500 pixels, but the image has 50 x 71"):
        quarter(spots, height, width + 1, model.stride)


def test_gene_training_learns_from_footprints_and_keeps_the_image():
    rgb = tissue(96)
    image, spots = as_images(rgb), footprints(96, 96, n=40)
    dark = spots @ (255 - rgb[..., 0].astype(float)).ravel()
    targets = torch.tensor((dark - dark.mean()) / dark.std(), dtype=torch.float32)[:, None]
    batches = [
        {"image": image, "footprints": quarter(spots[rows], 96, 96, 8), "targets": targets[rows]}
        for rows in (slice(30), slice(30, 40))
    ]
    model = Encoder()
    model.add_gene_head(1, seed=0)
    run = fit(GeneTraining(model, lr=0.01), batches[:1], batches[1:], max_epochs=60, seed=0, progress=False)
    assert run.best_score < 0.3
    assert run.history[-1]["val_ssim"] > run.history[0]["val_ssim"] + 0.2
    with pytest.raises(ValueError, match="call add_gene_head first"):
        GeneTraining(Encoder())


@pytest.mark.parametrize("kind", KINDS)
def test_networks_go_to_disk_and_back(kind, tmp_path):
    model = build(kind, n_genes=3).eval()
    save(model, tmp_path / "model.pt", {"um_per_px": 4.4, "genes": ["a", "b", "c"]})
    found, meta = load(tmp_path / "model.pt")
    assert (found.kind, found.n_genes, found.training) == (kind, 3, False)
    assert meta == {"um_per_px": 4.4, "genes": ["a", "b", "c"]}
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(found(x)[1], model(x)[1])


def test_files_that_are_no_network_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("hello")
    with pytest.raises(InputError, match=r"model.pt: found no network .*written by this workflow"):
        load(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(InputError, match="a file of another kind"):
        load(path)
    torch.save({"format": "histoweft pixel model 1", "kind": "unet", "n_genes": 0}, path)
    with pytest.raises(InputError, match="'unet'; expected autoencoder, encoder"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.pt")
    with pytest.raises(InputError, match="Did you mean 'autoencoder'"):
        build("autoencodr")


def test_pretraining_reconstructs_held_out_tissue_of_sections_of_several_sizes():
    sections = [(tissue(160), tiles()), (tissue(112, seed=1), tiles(112))]
    model, run, score = pretrain(sections, epochs=12, batch=8, seed=0, validation_share=0.15)
    assert score == run.best_score > 0.75
    assert not model.training
    unseen = as_images(tissue(96, seed=5))
    with torch.inference_mode():
        given = model(unseen)[0]
    assert float(ssim(given, unseen)) > 0.7
    red_less_blue = [(one[:, 0] - one[:, 2]).flatten() for one in (given, unseen)]
    assert float(torch.corrcoef(torch.stack(red_less_blue))[0, 1]) > 0.9


def test_pretraining_with_the_same_seed_gives_the_same_network():
    found = [pretrain([(tissue(), tiles())], epochs=1, batch=4, seed=seed)[0].state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(one, two) for one, two in zip(found[0].values(), found[1].values()))
    assert any(not torch.equal(one, two) for one, two in zip(found[0].values(), found[2].values()))


def test_crops_lie_on_tissue_and_touch_none_that_are_held_out():
    table = tiles()
    table.loc[table["x0"] > 60, "kept"] = False
    marked = tissue()
    marked[..., 0] = np.arange(160)  # every pixel tells its column ...
    marked[..., 1] = np.arange(160)[:, None]  # ... its row ...
    marked[..., 2] = 1  # ... and its section
    other = marked * [1, 1, 2]
    crops = _Crops([(marked, table), (other.astype(np.uint8), tiles())], batch=4, side=32)
    held_out = crops.hold_out(0.1, np.random.default_rng(0))
    assert sum(len(one) for one in held_out) == 1 + 2

    def pixels(batches):
        values = torch.cat(batches).mul(255).round().long().permute(0, 2, 3, 1).reshape(-1, 3)
        return set(map(tuple, values.tolist()))

    crops._batch = 500
    trained = pixels([next(iter(crops))])
    assert not trained & pixels(held_out)
    assert len(trained) > 20_000
    right = table.loc[table["kept"], "x1"].max()
    assert max(x for x, _, section in trained if section == 1) < right + 16


def test_pretraining_says_what_is_wrong_with_the_sections(caplog):
    table = tiles()
    with pytest.raises(InputError, match="tiles of section 2 of the pretraining: found no tile with tissue"):
        pretrain([(tissue(), table), (tissue(), table.assign(kept=False))], epochs=1, seed=0)
    with pytest.raises(InputError, match="no column kept"):
        pretrain([(tissue(), table.drop(columns="kept"))], epochs=1, seed=0)
    with pytest.raises(InputError, match="no sections"):
        pretrain([], epochs=1, seed=0)
    with pytest.raises(InputError, match="section 1 of the pretraining: found an image of 9 px; expected 16 px"):
        pretrain([(tissue(64)[:9], table)], epochs=1, seed=0)
    with pytest.raises(ValueError, match="validation_share"):
        pretrain([(tissue(), table)], epochs=1, seed=0, validation_share=1.0)
    _, _, score = pretrain([(tissue(40), tiles(40, size=20, step=20).iloc[:1])], epochs=1, batch=2, seed=0)
    assert np.isnan(score)
    assert "too small to hold tiles out" in caplog.text
