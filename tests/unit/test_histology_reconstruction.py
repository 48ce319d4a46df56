"""Sections made ready for pretraining, and the tissue given back strip by strip."""

import json

import histology_cases as cases
import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from histoweft.histology import autoencoder  # noqa: E402
from histoweft.histology.reconstruction import kept_part, reconstruct, study_sections  # noqa: E402
from histoweft.histology.stain import REFERENCE  # noqa: E402
from histoweft.histology.tissue import write_mask  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rgb():
    """An image of pink ground and dark nuclei, 500 x 460 px."""
    return cases.nuclei_image()


def test_reconstruction_by_strips(rgb):
    torch.manual_seed(1)
    network = autoencoder.build("autoencoder").eval()
    tall = np.vstack([rgb] * 3)[:1307]
    image, similarity = reconstruct(network, tall)
    with torch.inference_mode():
        whole = network(autoencoder.as_images(tall))[0][0].permute(1, 2, 0).numpy()
    assert np.abs(image - 255 * whole).max() < 0.51
    assert np.isnan(similarity[:5]).all()
    assert np.isnan(similarity[:, -5:]).all()
    assert np.isfinite(similarity[5:-5, 5:-5]).all()
    assert -1 <= np.nanmin(similarity) <= np.nanmax(similarity) <= 1


def test_sections_share_scale_and_stain(tmp_path, rgb, monkeypatch):
    images = {"a.tif": (rgb, 2.0), "b.tif": (rgb, 1.0)}
    monkeypatch.setattr("histoweft.images.read_image", lambda path: (*images[path.name], 1.0))
    tables = []
    for name, (_, um_per_px) in images.items():
        stain = {**REFERENCE.to_json(), "um_per_px": um_per_px}
        (tmp_path / f"{name}.json").write_text(json.dumps(stain))
        table = pd.DataFrame({"y0": [40], "y1": [140], "x0": [0], "x1": [100], "kept": [True]}, index=["1"])
        table.to_parquet(tmp_path / f"{name}.parquet")
        tables.append(tmp_path / f"{name}.parquet")
        mask = np.ones(rgb.shape[:2], dtype=bool)
        mask[:, 400:] = False
        write_mask(tmp_path / f"{name}.npz", mask, um_per_px)
    of = {suffix: [tmp_path / f"{name}.{suffix}" for name in images] for suffix in ("npz", "json")}
    sections, um_per_px, goal = study_sections([tmp_path / name for name in images], of["npz"], tables, of["json"])
    assert um_per_px == 2.0
    assert [rgb.shape for rgb, _ in sections] == [(500, 460, 3), (250, 230, 3)]
    assert sections[0][1].iloc[0].tolist()[:4] == [40, 140, 0, 100]
    assert sections[1][1].iloc[0].tolist()[:4] == [20, 70, 0, 50]
    for section, _ in sections:  # off the tissue there is glass
        edge = round(section.shape[1] * 400 / 460)
        assert (section[:, edge + 1 :] == np.rint(goal.background)).all()
        assert (section[:, : edge - 1] != np.rint(goal.background)).any()
    np.testing.assert_allclose(goal.matrix, REFERENCE.matrix, atol=1e-5)


def test_kept_part(rgb):
    tiles = pd.DataFrame({"y0": [100, 0], "y1": [300, 50], "x0": [50, 0], "x1": [150, 50], "kept": [True, False]})
    part, mask = kept_part(rgb, tiles)
    np.testing.assert_array_equal(part, rgb[100:300, 50:150])
    assert mask.all()
    part, mask = kept_part(rgb, tiles, most=80)
    np.testing.assert_array_equal(part, rgb[160:240, 60:140])
