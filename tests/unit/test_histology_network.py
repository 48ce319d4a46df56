"""The default model learns what is planted, from what it may see, the same every time; and is kept on disk."""

import dataclasses

import histology_cases as cases
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from histoweft.errors import InputError  # noqa: E402
from histoweft.histology import folds, network, spots  # noqa: E402
from histoweft.histology.network import Data, Ensemble, Options  # noqa: E402
from histoweft.histology.objectives import EnsembleTraining  # noqa: E402

SMALL = Options(members=4, hidden=16, steps=40, batch=32, points=2)
ENOUGH = Options(members=8, hidden=24, steps=160, batch=48, points=4, ridge_share=0.0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Keep the numerical libraries from waiting for busy cores."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the spots of one section."""
    return spots.join([cases.read(tmp_path_factory.mktemp("section"))])


@pytest.fixture(scope="module")
def goal(alone):
    """Return what is learned in one of its blocks."""
    return folds.target(alone, folds.within(alone, "block", 5, 1.0, seed=0)[1], 8)


def told(n=48, points=3, parts=4):
    """Return spots whose features and target say which spot and which part they are."""
    part = np.arange(n) % parts
    pixels = np.zeros((n, points, 3), dtype=np.float16)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = part[:, None], np.arange(n)[:, None], np.arange(points)
    target = np.stack([part, np.arange(n)], axis=1).astype(np.float32)
    return Data(pixels, np.arange(n, dtype=np.float32)[:, None] * 10, target, part)


# ------------------------------------------------------------------------------------------ what members see


def test_a_member_does_not_see_the_part_it_is_judged_on():
    data, options = told(), Options(members=6, steps=40, batch=7, points=2)
    torch.manual_seed(0)
    batches = network._Batches(data, options)
    seen = [set() for _ in range(6)]
    assert len(batches) == len(list(batches)) == 20
    for batch in (*batches, *batches):
        assert batch["x"].shape == (6, 7, 2, 4)
        parts, which = batch["x"][..., 0], batch["x"][..., 1]
        for member in range(6):
            assert not (parts[member] == member % 4).any()
            seen[member] |= set(which[member].flatten().int().tolist())
        # A spot's target, its features and its further features stay together, in every member.
        torch.testing.assert_close(batch["y"] * data.scale, torch.stack([parts, which], dim=-1)[:, :, 0])
        assert torch.equal(batch["x"][..., 3], 10 * which)
        # No spot twice in a batch.
        assert all(len(set(row.tolist())) == 7 for row in which[:, :, 0])
    assert seen == [{i for i in range(48) if i % 4 != member % 4} for member in range(6)]


def test_spots_are_judged_by_members_that_did_not_see_them():
    data = told(parts=4)
    held_out = network._held_out(data.parts, 6)
    assert np.array_equal(held_out, data.parts[None] == np.array([0, 1, 2, 3, 0, 1])[:, None])
    (batch,) = network._validation(data, 6)
    assert np.array_equal(batch["held_out"].numpy(), held_out)
    assert batch["x"].shape == (48, 3, 4)
    torch.testing.assert_close(batch["y"][:, 1] * data.scale, batch["x"][:, 0, 1])
    # Nothing can be left out of one part.
    assert not network._held_out(np.zeros(5, int), 3).any()
    assert network._validation(told(parts=1), 3) is None


class _Answer(Ensemble):
    """Members that always answer the same: their number, times a feature."""

    def forward(self, x):
        x = x.expand(self.members, *x.shape[-2:])
        return x[..., :2] * (1 + torch.arange(self.members)[:, None, None])


@pytest.mark.parametrize("members", [2, 4, 8])
def test_the_held_out_correlation_is_of_spots_that_someone_left_out(members):
    random = np.random.default_rng(0)
    data = told()
    data.pixels = random.standard_normal(data.pixels.shape).astype(np.float32)
    module = EnsembleTraining(_Answer(4, 2, Options(members=members)), Options(members=members))
    logged = {}
    module.log = lambda name, value, **_: logged.setdefault(name, float(value))
    for batch in network._validation(data, members):
        module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    # By hand: each spot is predicted by the mean of the members that leave out its part.
    judged = np.flatnonzero(data.parts < members)
    factor = np.array([np.mean([1 + m for m in range(members) if m % 4 == part]) for part in data.parts[judged]])
    given = data.pixels[judged].mean(axis=1)[:, :2] * factor[:, None]
    wanted = data.target[judged] / data.scale
    r = [np.corrcoef(given[:, i], wanted[:, i])[0, 1] for i in (0, 1)]
    assert logged["val_pearson"] == pytest.approx(np.average(r, weights=wanted.var(axis=0)), abs=1e-5)
    assert logged["val_mse"] == pytest.approx(((given - wanted) ** 2).sum(axis=1).mean(), rel=1e-4)


def test_one_part_is_learned_without_being_judged():
    data = told(parts=1)
    net, run = network.train(data, dataclasses.replace(SMALL, batch=500), seed=0)
    assert run.epochs == 2
    assert "val_pearson" not in run.history[-1]
    assert network.predict(net, np.zeros((3, 4), np.float32)).shape == (3, 2)


def test_nothing_left_to_learn_is_no_divergence():
    data = told()
    nothing = Data(data.pixels, data.extra, np.zeros_like(data.target), data.parts)
    _, run = network.train(nothing, SMALL, seed=0)
    assert run.history[-1]["val_pearson"] == 0


def test_members_differ_and_are_averaged():
    torch.manual_seed(0)
    net = Ensemble(5, 3, SMALL).eval()
    x = torch.randn(7, 5)
    given = net(x)
    assert given.shape == (4, 7, 3)
    assert given.std(dim=0).min() > 0
    np.testing.assert_allclose(network.predict(net, x.numpy()), given.detach().mean(dim=0).numpy(), atol=1e-6)
    # Own rows for each member: the same as all rows for one.
    own = net(torch.stack([x, 2 * x, 3 * x, 4 * x]))
    torch.testing.assert_close(own[0], given[0])
    torch.testing.assert_close(own[2], net(3 * x)[2])
    assert net.train()(x).ne(net(x)).any()


def test_pixels_are_predicted_in_parts(monkeypatch):
    torch.manual_seed(0)
    net = Ensemble(5, 3, SMALL).eval()
    x = np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)
    whole = network.predict(net, x)
    monkeypatch.setattr(network, "_ROWS", 7)
    np.testing.assert_allclose(network.predict(net, x), whole, atol=1e-6)
    assert network.predict(net, x[:0]).shape == (0, 3)


def test_tables_of_different_spots_are_refused():
    data = told()
    with pytest.raises(ValueError, match="not of the same spots"):
        Data(data.pixels[1:], data.extra, data.target, data.parts)
    assert Data(data.pixels, data.extra, np.ones_like(data.target), data.parts).scale == 1


# ------------------------------------------------------------------------------------------------- learning


def test_the_planted_programmes_are_learned_on_held_out_blocks(alone, goal):
    model, run = folds.fit_context(alone, goal, ENOUGH, seed=0)
    test, train = folds.predict_fold(alone, goal, model)
    truth = alone.normalised(goal.median_total)[goal.fold.test].toarray()
    given = goal.decompress(test).genes(slice(None))
    r = np.array([np.corrcoef(truth[:, gene], given[:, gene])[0, 1] for gene in range(len(cases.GENES))])
    assert r[cases.A].mean() > 0.6
    assert r[cases.B].mean() > 0.6
    assert abs(r[cases.NOISE].mean()) < 0.35
    mean = np.asarray(goal.expression.mean(axis=0)).ravel()
    better = ((truth - given) ** 2).mean(axis=0) / ((truth - mean) ** 2).mean(axis=0)
    assert better[cases.A].mean() < 0.6
    assert better[cases.B].mean() < 0.6
    assert better[cases.NOISE].mean() < 1.15
    assert folds.agreement(goal.scores, train) > 0.6
    assert run.history[-1]["val_pearson"] > 0.4


def test_the_same_seed_gives_the_same_predictions(alone, goal):
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(found))
        model, _ = folds.fit_context(alone, goal, SMALL, seed=seed)
        found.append(folds.predict_context(model, alone.pixels[goal.fold.test]))
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2], atol=1e-3)


def test_scores_are_the_mean_of_ridge_and_networks_by_their_shares():
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    ridge, offset, x = (random.standard_normal(shape).astype(np.float32) for shape in ((5, 3), (3,), (7, 5)))
    model = network.Model(Ensemble(5, 3, SMALL).eval(), 7.0, ridge, offset, 0.3, np.eye(3), np.zeros(3), [], [])
    expected = 0.7 * 7.0 * network.predict(model.network, x) + 0.3 * (x @ ridge + offset)
    np.testing.assert_allclose(model.scores(x), expected, atol=1e-5)


# --------------------------------------------------------------------------------------------------- on disk


def test_a_saved_model_predicts_the_same(alone, goal, tmp_path):
    model, _ = folds.fit_context(alone, goal, SMALL, seed=0)
    network.save(model, tmp_path / "model.pt", {"samples": ["s0"], "epochs": 2})
    back, meta = network.load(tmp_path / "model.pt")
    assert meta == {"samples": ["s0"], "epochs": 2}
    assert (back.genes, back.features, back.ridge_share) == (cases.GENES, alone.features, SMALL.ridge_share)
    pixels = alone.pixels[goal.fold.test]
    assert np.array_equal(folds.predict_context(back, pixels), folds.predict_context(model, pixels))
    scores = folds.predict_context(back, pixels)
    genes = np.array([30, 2])
    expression = back.expression(scores, genes)
    expected = np.maximum(goal.decompress(scores).genes(genes), 0)
    np.testing.assert_allclose(expression, expected, atol=1e-5)
    assert (back.expression(np.full((1, 8), -100.0), np.arange(40)) >= 0).all()


@pytest.mark.parametrize("content", [b"", b"no model", {"format": "another"}, {}])
def test_what_is_no_model_is_named(tmp_path, content):
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"(?s)model\.pt: .*expected a gene model of the histology stage.*Delete it"):
        network.load(path)


def test_a_missing_model_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        network.load(tmp_path / "model.pt")
