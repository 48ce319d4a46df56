"""The trainer: seeds, resuming, early stopping, and what it says when something is wrong."""

import logging
import warnings

import pytest

torch = pytest.importorskip("torch")
pl = pytest.importorskip("pytorch_lightning")

from histoweft import training  # noqa: E402
from histoweft.errors import HistoweftError  # noqa: E402
from histoweft.training import adam, fit  # noqa: E402


class Line(pl.LightningModule):
    """A small network with dropout and a schedule, so that resuming has something to get wrong."""

    def __init__(self, width=8, lr=0.05, fail_at=None):
        super().__init__()
        self.save_hyperparameters("width", "lr")
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, width), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(width, 1)
        )
        self.fail_at = fail_at

    def training_step(self, batch, index):
        if self.current_epoch == self.fail_at:
            raise RuntimeError("killed")
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.net(x)[:, 0], y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        x, y = batch
        self.log("val_loss", torch.nn.functional.mse_loss(self.net(x)[:, 0], y))

    def configure_optimizers(self):
        optimizer = adam(self.parameters(), self.hparams.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.8)]


class Scripted(pl.LightningModule):
    """Its weight counts the epochs; its held-out score follows a script."""

    def __init__(self, scores):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.scores = scores

    def training_step(self, batch, index):
        return -self.weight.sum()

    def validation_step(self, batch, index):
        self.log("score", self.scores[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def loader(shuffle=True, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 3, generator=random)
    data = torch.utils.data.TensorDataset(x, x @ torch.tensor([1.0, -2.0, 0.5]))
    return torch.utils.data.DataLoader(data, batch_size=16, shuffle=shuffle)


def line(**options):
    torch.manual_seed(7)
    return Line(**options)


def weights(module):
    return torch.cat([value.flatten() for value in module.state_dict().values()])


def run(module, **options):
    return fit(module, loader(), loader(False, 1), **({"max_epochs": 6, "seed": 3} | options))


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    one, two, other = line(), line(), line()
    run(one)
    torch.rand(5)
    run(two)
    run(other, seed=4)
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))


def test_a_killed_run_goes_on_to_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(training, "_SAVE_EVERY", 0.0)
    path = tmp_path / "run.ckpt"
    whole = line()
    expected = run(whole)
    with pytest.raises(RuntimeError, match="killed"):
        run(line(fail_at=3), checkpoint=path)
    assert [one.name for one in tmp_path.iterdir()] == ["run.ckpt"]
    module = line()
    with caplog.at_level(logging.INFO):
        found = run(module, checkpoint=path)
    assert "going on" in caplog.text
    assert found.resumed
    assert not expected.resumed
    assert not path.exists()
    assert found.epochs == 6
    assert [one["val_loss"] for one in found.history] == [one["val_loss"] for one in expected.history]
    assert found.best_epoch == expected.best_epoch
    assert torch.equal(weights(module), weights(whole))


def test_best_weights_of_before_the_kill_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_SAVE_EVERY", 0.0)
    scores = [3.0, 1.0, 2.0, 2.0, 2.0, 0.0]
    killed = Scripted(scores[:3])
    batches = [torch.zeros(1)]
    options = {"max_epochs": 6, "monitor": "score", "patience": 3, "seed": 0, "checkpoint": tmp_path / "x.ckpt"}
    with pytest.raises(IndexError):
        fit(killed, batches, batches, **options)
    module = Scripted(scores)
    found = fit(module, batches, batches, **options)
    assert (found.epochs, found.best_epoch, found.best_score) == (5, 2, 1.0)
    assert module.weight.item() == 2


@pytest.mark.parametrize(("mode", "best"), [("min", 2), ("max", 3)])
def test_early_stopping_keeps_the_best_weights(mode, best):
    scores = [3.0, 1.0, 5.0, 4.0, 4.0, 4.0, 4.0, 0.0]
    module = Scripted(scores)
    batches = [torch.zeros(1)] * 2
    found = fit(module, batches, batches, max_epochs=8, patience=2, monitor="score", mode=mode, seed=0)
    assert (found.epochs, found.best_epoch, found.best_score) == (best + 2, best, scores[best - 1])
    assert module.weight.item() == 2 * best
    assert not module.training


def test_without_a_validation_set_the_last_weights_stay():
    module = line()
    found = fit(module, loader(), max_epochs=4, monitor="train_loss", seed=0)
    assert found.best_epoch == found.epochs == 4
    assert found.best_score == found.history[-1]["train_loss"]
    assert found.seconds >= found.seconds_per_epoch > 0


def test_checkpoints_of_other_runs_are_left_out_with_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(training, "_SAVE_EVERY", 0.0)
    path = tmp_path / "run.ckpt"
    for changes, word in [
        ({"width": 4}, "parameters"), ({"lr": 0.01}, "hyper-parameters"), ({"seed": 9}, "seed"),
        ({"fingerprint": "other data"}, "more"),
    ]:  # fmt: skip
        with pytest.raises(RuntimeError, match="killed"):
            run(line(fail_at=2), checkpoint=path)
        model = {name: changes.pop(name) for name in ("width", "lr") if name in changes}
        caplog.clear()
        assert not run(line(**model), checkpoint=path, **changes).resumed
        assert word in caplog.text
        assert not path.exists()
    path.write_text("not a checkpoint")
    assert not run(line(), checkpoint=path).resumed
    assert "not a checkpoint" in caplog.text


def test_batches_of_their_own_making_are_told_the_epoch():
    told = []

    class Batches:
        def set_epoch(self, epoch):
            told.append(epoch)

        def __iter__(self):
            yield from loader()

    fit(line(), Batches(), max_epochs=3, monitor="train_loss", seed=0)
    assert told == [0, 1, 2]


def test_it_leaves_nothing_behind_and_says_little(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(line(), max_epochs=100)
    ours = [record.message for record in caplog.records if record.name.startswith("histoweft")]
    assert 20 <= len(ours) <= 23
    assert ours[0].startswith("epoch 1 of 100: ")
    assert "is kept" in ours[-1]
    assert len(ours) == len(caplog.records)
    captured = capfd.readouterr()
    assert "\r" not in captured.out + captured.err
    assert list(tmp_path.iterdir()) == []
    assert not torch.are_deterministic_algorithms_enabled()


def test_bad_inputs_say_what_is_wrong():
    with pytest.raises(HistoweftError, match="no batches"):
        fit(line(), [], max_epochs=1, seed=0)
    with pytest.raises(ValueError, match="'nothing' was not logged; there are: train_loss, val_loss"):
        run(line(), monitor="nothing")
    with pytest.raises(HistoweftError, match=r"diverged: score is nan in epoch 2\. Lower the learning rate"):
        fit(Scripted([1.0, float("nan")]), [torch.zeros(1)], [torch.zeros(1)], max_epochs=2, monitor="score", seed=0)
    with pytest.raises(ValueError, match="needs a validation set"):
        fit(line(), loader(), max_epochs=1, patience=2, seed=0)
    with pytest.raises(ValueError, match="'min' or 'max'"):
        run(line(), mode="lowest")
    with pytest.raises(ValueError, match="device is cpu"):
        run(line(), device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(HistoweftError, match="Use device cpu"):
            run(line(), device="cuda")
