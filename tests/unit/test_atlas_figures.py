"""Figures of the atlas: they show what they claim, and survive atlases without a grid or an annotation."""

import atlas_cases as cases
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histoweft.atlas import figures, summary
from histoweft.atlas.results import FoldResult, Result


def _study(atlas):
    """Return folds of two protocols in which every held-out voxel is reconstructed as its row number."""
    rng = np.random.default_rng(0)
    found = []
    for protocol in ("block", "random"):
        for number, test in enumerate(np.array_split(rng.permutation(atlas.n), 2)):
            n = len(test)
            values = (test[:, None] / atlas.n).astype(np.float16)

            def made(method, shift, test=test, n=n, values=values):
                return Result(
                    method, n=np.full(4, n), error=np.full(4, 0.3 * n), total=np.full(4, float(n)),
                    pearson=np.full(4, 0.7), unit_error=0.1, voxel_error=rng.random(n).astype(np.float32), shown=values,
                    place=(atlas.position[test] + shift).astype(np.float32),
                    latent=rng.normal(size=(n, 5)).astype(np.float16),
                    history=[{"epoch": epoch, "loss": 3.0 / epoch, "val_loss": 4.0 / epoch} for epoch in (1, 2, 3)],
                )  # fmt: skip

            results = [made("residual", 0.5), made("floor:pca", 0), made("floor:knn", 2.0), made("reference", 3.0)]
            found.append(
                FoldResult(
                    protocol, f"{protocol}_{number + 1}", test, np.array(list("abcd")), np.array(["b"]), values, results
                )
            )
    return found


@pytest.mark.parametrize("bare", [False, True])
def test_every_figure_is_drawn(bare, tmp_path):
    atlas = cases.atlas(400)
    if bare:
        place = atlas.position + 0.1 * np.random.default_rng(0).normal(size=atlas.position.shape).astype(np.float32)
        atlas = type(atlas)(atlas.expression, place, atlas.genes, 5.0)
    found = _study(atlas)
    clusters, labels = summary.latent_clusters(found, atlas)
    assert bool(clusters) is not bare
    made = summary.summarise(found, atlas, "s", "residual", clusters)
    figures.score_figure(made.rows, tmp_path / "scores.png")
    figures.slice_figure(found, atlas, "block", "residual", tmp_path / "slice.png")
    figures.place_figure(found, atlas, "block", ["residual", "floor:knn", "absent"], tmp_path / "place.png")
    figures.error_figure(found, atlas, "block", "residual", "residual", tmp_path / "errors.png")
    figures.cluster_figure(labels, clusters, atlas, tmp_path / "clusters.png")
    figures.along_z_figure(made.along_z, made.history, tmp_path / "along_z.png")
    for path in tmp_path.iterdir():
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[0] > 300, path
        assert (pixels < 200).mean() > 0.005, path
    assert len(list(tmp_path.iterdir())) == 6


def test_folds_are_put_back_where_they_belong():
    atlas = cases.atlas(400)
    found = _study(atlas)
    whole = figures.joined(found, "block", "residual", "shown", atlas)
    assert np.allclose(whole[:, 0], np.arange(atlas.n) / atlas.n, atol=1e-3)
    place = figures.joined(found, "random", "floor:knn", "place", atlas)
    assert np.allclose(place, atlas.position + 2, atol=1e-4)
    assert np.isnan(figures.joined(found, "block", "absent", "place", atlas)).all()
    one = figures.joined(found[:1], "block", "residual", "shown", atlas)
    assert np.isnan(one[found[1].test]).all()


def test_a_section_is_one_plane_of_the_grid():
    atlas = cases.atlas(400)
    here = figures.section_of(atlas)
    assert len(np.unique(atlas.position[here, 0])) == 1
    counts = np.unique(atlas.position[:, 0], return_counts=True)[1]
    assert here.sum() == counts.max()


def test_explained_genes_are_drawn(tmp_path):
    genes = pd.DataFrame({
        "target": np.repeat(["z", "CTX"], 20), "kind": np.repeat(["axis", "structure"], 20),
        "gene": [f"g{i}" for i in range(20)] * 2, "attribution": np.tile(np.linspace(1, 0, 20), 2),
        "rank": np.tile(np.arange(1, 21), 2),
    })  # fmt: skip
    agreement = pd.DataFrame({"target": ["z", "CTX"], "kind": ["axis", "structure"], "auroc": [0.7, 0.9]})
    figures.explain_figure(genes, agreement, tmp_path / "explained.png")
    assert (np.asarray(Image.open(tmp_path / "explained.png").convert("L")) < 200).mean() > 0.02
