"""Encoders: the option, weights from files and from a hub that is not there, dense maps without seams."""

import logging
import subprocess
import sys

import histology_cases as cases
import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from histoweft.errors import HistoweftError, InputError  # noqa: E402
from histoweft.histology import autoencoder  # noqa: E402
from histoweft.histology.encoders import (  # noqa: E402
    KNOWN,
    Choice,
    _resolved,
    _zoom,
    licence_note,
    load_encoder,
    parse,
    projection,
)
from histoweft.histology.stain import REFERENCE, normalise  # noqa: E402

CONVOLUTIONS, TRANSFORMER = "resnet10t", "vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rgb():
    """An image of pink ground and dark nuclei, 500 x 460 px."""
    return cases.nuclei_image()


def checkpoint(folder, name, suffix=".safetensors", wrap=lambda weights: weights, **options):
    torch.manual_seed(0)
    path = folder / f"{name}{suffix}"
    weights = timm.create_model(name, pretrained=False, **options).state_dict()
    if suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(weights, path)
    else:
        torch.save(wrap(weights), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {name: checkpoint(folder, name) for name in (CONVOLUTIONS, TRANSFORMER)}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("own") / "encoder.pt"
    autoencoder.save(autoencoder.build("encoder"), path, {"um_per_px": 2.0, "target": REFERENCE.to_json()})
    return path


# --------------------------------------------------------------------------------------------------------- the option


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("none", Choice("none")),
        ("pretrained", Choice("pretrained")),
        ("timm:resnet50.a1_in1k", Choice("timm", "resnet50.a1_in1k")),
        ("timm:hf-hub:MahmoodLab/UNI2-h", Choice("timm", "hf-hub:MahmoodLab/UNI2-h")),
    ],
)
def test_parse(text, choice):
    assert parse(text) == choice
    assert str(choice) == text


def test_parse_file():
    choice = parse("timm:hf-hub:paige-ai/Virchow2@weights/some where/virchow2.bin")
    assert choice.name == "hf-hub:paige-ai/Virchow2"
    assert choice.path.name == "virchow2.bin"
    assert parse(str(choice)) == choice


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pretraind", "Did you mean 'pretrained'?"),
        (None, "found None"),
        (["none"], "in quotes"),
        ("timm:", "After timm: comes a model's name"),
        ("timm:MahmoodLab/UNI", "timm:hf-hub:MahmoodLab/UNI"),
        ("timm:resnet50@main", "ending in .safetensors"),
        ("timm:resnet50@", "ending in .safetensors"),
        ("resnet50", "timm:<name>"),
    ],
)
def test_parse_refuses(text, says):
    with pytest.raises(InputError, match="histology: encoder") as caught:
        parse(text)
    assert says in str(caught.value)


def test_parse_imports_nothing_heavy(repo):
    code = "import sys; from histoweft.histology.encoders import parse; parse('timm:x@y.pt');"
    code += "print([name for name in ('timm', 'torch', 'PIL', 'matplotlib') if name in sys.modules])"
    lib = str(repo / "workflow" / "lib")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": lib})
    assert run.stdout.strip() == "[]", run.stderr


def test_licences():
    assert "non-commercial" in licence_note("hf-hub:MahmoodLab/UNI")
    assert licence_note("hf_hub:MahmoodLab/UNI") == licence_note("hf-hub:mahmoodlab/uni")
    assert "Apache-2.0" in licence_note("resnet50")
    assert "not known" in licence_note("hf-hub:someone/something")
    assert all(name == name.lower() for name in KNOWN)


# ------------------------------------------------------------------------------------------------------------ the maps


@pytest.mark.parametrize("name", [CONVOLUTIONS, TRANSFORMER])
def test_maps_fit_the_image(files, rgb, name):
    encoder = load_encoder(parse(f"timm:{name}@{files[name]}"), "cpu", 0.5, n_maps=5)
    assert encoder.names == [f"{name}_{i}" for i in range(1, 6)]
    part = rgb[:131, :77]
    maps = encoder.encode(part)
    assert maps.shape == (5, 131, 77)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    again = load_encoder(parse(f"timm:{name}@{files[name]}"), "cpu", 0.5, n_maps=5).encode(part)
    np.testing.assert_array_equal(maps, again)


@pytest.mark.parametrize(
    ("name", "um_per_px"), [(CONVOLUTIONS, 1.0), (CONVOLUTIONS, 0.5), (TRANSFORMER, 0.9), (TRANSFORMER, 0.5)]
)
def test_a_strip_gives_what_the_image_gives(files, rgb, name, um_per_px):
    encoder = load_encoder(parse(f"timm:{name}@{files[name]}"), "cpu", um_per_px, n_maps=3)
    image = np.vstack([rgb, rgb])[:, :60]
    whole = encoder.encode(image)
    start, stop = 470, 520
    top, bottom = start - encoder.margin, min(len(image), stop + encoder.margin)
    strip = encoder.encode(image[top:bottom], top)[:, start - top : stop - top]
    assert whole.std() > 0.01
    np.testing.assert_allclose(strip, whole[:, start:stop], atol=2e-3 * whole.std())


def test_a_shifted_image_gives_shifted_maps(files, rgb):
    """Wherever the windows fall, convolutions see nearly the same."""
    encoder = load_encoder(parse(f"timm:{CONVOLUTIONS}@{files[CONVOLUTIONS]}"), "cpu", 0.5, n_maps=4)
    here, there = encoder.encode(rgb), encoder.encode(rgb[64:, 96:])
    a, b = here[:, 164:400, 196:400], there[:, 100:336, 100:304]
    assert all(np.corrcoef(x.ravel(), y.ravel())[0, 1] > 0.95 for x, y in zip(a, b))


def test_no_lattice_on_a_plain_image(files, rgb):
    encoder = load_encoder(parse(f"timm:{CONVOLUTIONS}@{files[CONVOLUTIONS]}"), "cpu", 0.5, n_maps=4)
    plain = encoder.encode(np.full_like(rgb, 230))
    assert plain.std(axis=(1, 2)).max() < 0.02 * encoder.encode(rgb).std(axis=(1, 2)).min()


def test_maps_lie_where_the_image_does(files):
    """A dark square shows in the maps at its own place."""
    encoder = load_encoder(parse(f"timm:{CONVOLUTIONS}@{files[CONVOLUTIONS]}"), "cpu", 1.0, n_maps=4)
    image = np.full((300, 300, 3), 235, dtype=np.uint8)
    image[180:220, 60:100] = (100, 40, 120)
    maps = encoder.encode(image)
    change = np.abs(maps - np.median(maps, axis=(1, 2), keepdims=True)).sum(axis=0)
    y, x = np.mgrid[:300, :300]
    centre = (y * change).sum() / change.sum(), (x * change).sum() / change.sum()
    np.testing.assert_allclose(centre, (199.5, 79.5), atol=8)


def test_glass_is_left_out(files, rgb):
    encoder = load_encoder(parse(f"timm:{TRANSFORMER}@{files[TRANSFORMER]}"), "cpu", 0.5, n_maps=2)
    looked, look = [], encoder._backbone.look
    object.__setattr__(encoder._backbone, "look", lambda windows: looked.append(len(windows)) or look(windows))
    mask = np.zeros(rgb.shape[:2], dtype=bool)
    mask[20:90, 30:100] = True
    whole, n_whole = encoder.encode(rgb), sum(looked)
    looked.clear()
    tissue = encoder.encode(rgb, mask=mask)
    assert sum(looked) < n_whole / 2
    np.testing.assert_allclose(tissue[:, mask], whole[:, mask], atol=1e-4)
    assert (tissue[:, -1, -1] == 0).all()
    assert (encoder.encode(rgb, mask=np.zeros_like(mask)) == 0).all()


def test_a_stage(files, rgb):
    deep = load_encoder(parse(f"timm:{CONVOLUTIONS}@{files[CONVOLUTIONS]}"), "cpu", 0.5)
    fine = load_encoder(parse(f"timm:{CONVOLUTIONS}@{files[CONVOLUTIONS]}"), "cpu", 0.5, stage=2)
    assert deep._backbone.stride == 32
    assert fine._backbone.stride == 8
    assert fine.encode(rgb[:64, :64]).shape == (32, 64, 64)
    with pytest.raises(HistoweftError, match="Choose another stage"):
        load_encoder(parse(f"timm:{CONVOLUTIONS}@{files[CONVOLUTIONS]}"), "cpu", 0.5, stage=40)


def test_projection_is_orthonormal_and_fixed():
    basis = projection(200, 32)
    np.testing.assert_allclose(basis.T @ basis, np.eye(32), atol=1e-5)
    np.testing.assert_array_equal(basis, projection(200, 32))


def test_scale(caplog):
    with caplog.at_level(logging.WARNING):
        assert _zoom(0.25, 0.5) == 0.5
        assert _zoom(0.505, 0.5) == 1
        assert not caplog.records
        assert _zoom(1.0, 0.5) == 2
        assert "enlarged 2 times" in caplog.text
        assert _zoom(4.4, 0.5) == 4
        assert "to 1.1 um per pixel only" in caplog.text


def test_options(files):
    choice = parse(f"timm:{CONVOLUTIONS}@{files[CONVOLUTIONS]}")
    with pytest.raises(InputError, match="um per pixel"):
        load_encoder(choice, "cpu", float("nan"))
    with pytest.raises(ValueError, match="n_maps"):
        load_encoder(choice, "cpu", 0.5, n_maps=0)
    with pytest.raises(ValueError, match="nothing to load"):
        load_encoder(parse("none"), "cpu", 0.5)


# --------------------------------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize(
    ("suffix", "wrap"),
    [
        (".pth", lambda weights: weights),
        (".pt", lambda weights: {"epoch": 3, "state_dict": weights}),
        (".bin", lambda weights: {"model": {f"module.{key}": value for key, value in weights.items()}}),
    ],
)
def test_kinds_of_checkpoint(tmp_path, files, rgb, suffix, wrap):
    path = checkpoint(tmp_path, CONVOLUTIONS, suffix, wrap)
    given = load_encoder(parse(f"timm:{CONVOLUTIONS}@{path}"), "cpu", 0.5).encode(rgb[:64, :64])
    same = load_encoder(parse(f"timm:{CONVOLUTIONS}@{files[CONVOLUTIONS]}"), "cpu", 0.5).encode(rgb[:64, :64])
    np.testing.assert_array_equal(given, same)


def test_wrong_architecture(files):
    with pytest.raises(InputError, match="tensors that do not fit") as caught:
        load_encoder(parse(f"timm:resnet18@{files[CONVOLUTIONS]}"), "cpu", 0.5)
    text = str(caught.value)
    assert "missing (" in text
    assert "unknown (conv1.0.weight" in text
    assert "timm:resnet18" in text
    with pytest.raises(InputError, match=r"of another shape .*\(192,.*\) for \(384,"):
        load_encoder(parse(f"timm:vit_small_patch16_224@{files[TRANSFORMER]}"), "cpu", 0.5)


def test_bad_files(tmp_path):
    def load(path):
        load_encoder(parse(f"timm:{CONVOLUTIONS}@{path}"), "cpu", 0.5)

    with pytest.raises(InputError, match="a checkpoint file"):
        load(tmp_path / "none.pt")
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("<html>not found</html>")
        with pytest.raises(InputError, match="a file of plain tensors"):
            load(tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "facts.pt")
    with pytest.raises(InputError, match="expected a state_dict"):
        load(tmp_path / "facts.pt")


def test_unknown_names(files):
    with pytest.raises(InputError, match="Did you mean 'resnet50'"):
        load_encoder(parse("timm:resnet50x"), "cpu", 0.5)
    with pytest.raises(InputError, match="whose architecture needs no hub"):
        load_encoder(parse(f"timm:hf-hub:someone/something@{files[CONVOLUTIONS]}"), "cpu", 0.5)


def test_no_hub(monkeypatch):
    """The client itself, told to work offline, with an empty cache."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HistoweftError, match="cannot be had") as caught:
        load_encoder(parse("timm:hf-hub:MahmoodLab/UNI"), "cpu", 0.5)
    text = str(caught.value)
    for said in ("timm:hf-hub:MahmoodLab/UNI@<file>", "HF_TOKEN", "https://huggingface.co/MahmoodLab/UNI", "none"):
        assert said in text


class GatedRepoError(OSError):
    """Named as the hub's client names it."""


class _Refused(Exception):
    class response:
        status_code = 403


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (GatedRepoError("401 Client Error"), "it is gated"),
        (ConnectionError("Max retries"), "cannot be reached"),
        (_Refused("no"), "HTTP 403"),
        (RuntimeError("No pretrained weights exist for x.\nMore"), "RuntimeError: No pretrained weights exist for x."),
    ],
)
def test_reasons(monkeypatch, error, says):
    def fail(*_, **__):
        try:
            raise error
        except type(error) as cause:
            raise ValueError(str(cause)) if "RuntimeError" not in says else cause from cause

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(HistoweftError, match="no access to the hub") as caught:
        load_encoder(parse("timm:resnet18"), "cpu", 0.5)
    assert says in str(caught.value)
    assert "More" not in str(caught.value)


def test_no_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(HistoweftError, match=r"envs/histology\.yaml"):
        load_encoder(parse("timm:resnet18"), "cpu", 0.5)


@pytest.mark.parametrize("name", [name for name, known in KNOWN.items() if known.architecture])
def test_known_architectures_can_be_built(name):
    """On the meta device: no memory, no weights."""
    known = KNOWN[name]
    with torch.device("meta"):
        network = timm.create_model(
            known.architecture, pretrained=False, num_classes=0, **{k: _resolved(v) for k, v in known.options.items()}
        )
    assert network.pretrained_cfg["input_size"][0] == 3
    assert network.num_prefix_tokens >= 1


# ------------------------------------------------------------------------------------------------- the study's network


def test_own_network_gives_its_features(own, rgb):
    encoder = load_encoder(parse("pretrained"), "cpu", 2.0, model=own, n_maps=1000)
    network, _ = autoencoder.load(own)
    with torch.inference_mode():
        seen = network.features(autoencoder.as_images(rgb), 2)[0].numpy()
    maps = encoder.encode(rgb)
    assert encoder.names[0] == "pretrained_1"
    assert len(encoder.names) == len(seen)
    # Between the centres of two cells lie two pixels, a quarter and three quarters of the way.
    cells = seen[:, 20:-20, 20:-20]
    quarter = 0.75 * cells[:, :-1] + 0.25 * cells[:, 1:]
    expected = 0.75 * quarter[:, :, :-1] + 0.25 * quarter[:, :, 1:]
    found = maps[:, 41::2, 41::2][:, : expected.shape[1], : expected.shape[2]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_own_network_sees_the_target_stain(own, rgb):
    stain = type(REFERENCE)(REFERENCE.matrix, REFERENCE.maximum * 1.5, REFERENCE.background)
    plain = load_encoder(parse("pretrained"), "cpu", 2.0, model=own)
    stained = load_encoder(parse("pretrained"), "cpu", 2.0, model=own, stain=stain)
    np.testing.assert_allclose(stained.encode(rgb), plain.encode(normalise(rgb, stain, REFERENCE)), atol=1e-5)
    assert len(plain.names) == 32


def test_own_network_without_facts(tmp_path):
    path = tmp_path / "encoder.pt"
    autoencoder.save(autoencoder.build("encoder"), path, {"um_per_px": 2.0})
    with pytest.raises(InputError, match="without 'target'"):
        load_encoder(parse("pretrained"), "cpu", 2.0, model=path)
