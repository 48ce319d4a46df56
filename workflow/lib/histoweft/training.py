"""One Lightning trainer for every model: seed, device, progress, early stopping, resuming, timing."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import math
import os
import statistics
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histoweft import io
from histoweft.errors import HistoweftError

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch

_log = logging.getLogger(__name__)

_SAVE_EVERY = 10.0
"""Seconds between two checkpoints, at least: an epoch of a small model is shorter than writing one."""
_SAY_EVERY = 30.0
"""Seconds after which a line of progress is due whatever the epoch."""
_LINES = 20
"""Lines of progress of a whole run, about."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of options in glibc's malloc.h."""


@dataclass
class Run:
    """What one training did.

    Attributes
    ----------
    epochs
        Epochs trained, those before a resumption included.
    seconds
        Wall time of these epochs, validation included; setting up excluded.
    seconds_per_epoch
        Median over the epochs.
    best_epoch
        The epoch, from 1, whose weights the model has now.
    best_score
        The monitored score in that epoch; NaN when it is not logged.
    history
        One dict an epoch: ``epoch``, ``seconds`` and everything the module logged.
    device
        Where it ran.
    resumed
        Whether it went on from a killed run's checkpoint.
    """

    epochs: int
    seconds: float
    seconds_per_epoch: float
    best_epoch: int
    best_score: float
    history: list[dict[str, float]] = field(repr=False)
    device: str
    resumed: bool

    @property
    def facts(self) -> dict[str, float | str]:
        """Epochs, times and device, for a table."""
        names = ("epochs", "best_epoch", "seconds", "seconds_per_epoch", "device")
        return {name: getattr(self, name) for name in names}


def adam(parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay (Loshchilov and Hutter 2019), all parameters in one kernel."""
    import torch

    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def fit(
    module: pl.LightningModule,
    train_batches: Iterable[Any],
    validation: Iterable[Any] | None = None,
    *,
    max_epochs: int,
    patience: int | None = None,
    monitor: str = "val_loss",
    mode: str = "min",
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    checkpoint: str | os.PathLike | None = None,
    fingerprint: str = "",
    gradient_clip: float | None = None,
    progress: bool = True,
) -> Run:
    """Train a module; it comes back on the CPU, in evaluation mode, with the weights of its best epoch.

    Parameters
    ----------
    module
        What to train. Log scores with ``self.log(name, value)``; give ``batch_size=`` where batches differ in size.
    train_batches, validation
        A DataLoader, a list of batches, or anything that can be iterated once an epoch. All random numbers drawn
        while iterating should come from the global generators or the DataLoader's own: both are seeded again from
        `seed` and the epoch, so that a resumed run sees what an uninterrupted one would have. An iterable with a
        ``set_epoch`` method is told the epoch (from 0) instead.
    max_epochs
        Epochs at most.
    patience
        Stop after so many epochs without a better `monitor`; None never stops early.
    monitor, mode
        Name of the logged score that chooses the best epoch, and whether ``min`` or ``max`` of it is best. Without
        `validation` the weights of the last epoch are kept, and the score is only reported.
    seed
        Of Python, numpy and torch.
    device
        ``cpu``, ``cuda``, ``cuda:1`` or ``mps``. One that is asked for and not there is an error, never left out.
    threads
        Of torch on the CPU.
    checkpoint
        A ``.ckpt`` file. Written between epochs, at most every ten seconds; when it is there at the start, the run
        goes on from it; removed at the end. One that belongs to another model or setting is left out with a warning.
    fingerprint
        Anything else that must be equal for a checkpoint to be continued, such as a hash of the data.
    gradient_clip
        Largest norm of the gradient; None leaves it.
    progress
        Whether to log a line every few epochs.

    Returns
    -------
    Run

    Raises
    ------
    HistoweftError
        The device is missing, there are no batches, or the monitored score is not a number any more.
    ValueError
        An option is out of range, or nothing called `monitor` was logged.
    """
    import torch

    _check_options(max_epochs, patience, mode, validation, threads)
    accelerator, devices = _accelerator(device)
    torch.set_num_threads(threads)
    _keep_memory()
    path = None if checkpoint is None else Path(checkpoint)
    facts = _facts(module, seed=seed, monitor=monitor, mode=mode, max_epochs=max_epochs, more=fingerprint)
    with _quiet():
        import pytorch_lightning as pl
        from pytorch_lightning.plugins.environments import LightningEnvironment

        pl.seed_everything(seed, workers=True)
        state = None if path is None else _saved_state(path, facts)
        told = max_epochs if progress else 0
        watch = _Watch(monitor, mode, patience, validation is not None, path, facts, told, state)
        with _deterministic():
            trainer = pl.Trainer(
                accelerator=accelerator,
                devices=devices,
                max_epochs=max_epochs,
                callbacks=[watch.callback()],
                deterministic="warn",
                gradient_clip_val=gradient_clip,
                # A job inside SLURM is one process; Lightning must not look at the allocation's number of tasks.
                plugins=[LightningEnvironment()],
                num_sanity_val_steps=0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
            torch.utils.deterministic.fill_uninitialized_memory = False
            batches = _Epochs(train_batches, seed, trainer)
            held_out = None if validation is None else _Epochs(validation, seed, trainer, salt=1)
            trainer.fit(module, batches, held_out)
    if not watch.history:
        raise HistoweftError("There was nothing to train on: the training data gave no batches.")
    watch.restore(module)
    module.trainer = None
    module.eval()
    if path is not None:
        path.unlink(missing_ok=True)
    run = _summary(watch, device, state is not None)
    if progress:
        took = f"{run.epochs} epochs in {run.seconds:.1f} s on {device}"
        _log.info("%s; %s %.4g in epoch %d is kept", took, monitor, run.best_score, run.best_epoch)
    return run


def _keep_memory() -> None:
    """Let the allocator keep large blocks instead of returning them after each operation (glibc; else nothing).

    A step allocates and frees the same arrays over and over; fetched from the system each time, every page of them is
    cleared again, which takes up to a tenth of the step.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_MMAP_THRESHOLD, 2**30)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def _check_options(max_epochs: int, patience: int | None, mode: str, validation: Any, threads: int) -> None:
    if max_epochs < 1 or threads < 1:
        raise ValueError(f"max_epochs and threads are at least 1, not {max_epochs} and {threads}")
    if mode not in ("min", "max"):
        raise ValueError(f"mode is 'min' or 'max', not {mode!r}")
    if patience is not None and (patience < 1 or validation is None):
        raise ValueError(f"patience {patience} needs a validation set, and one epoch at least")


def _accelerator(device: str) -> tuple[str, Any]:
    """Translate a device's name for the trainer."""
    import torch

    kind, _, number = device.partition(":")
    there = {"cpu": lambda: True, "cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if kind not in there or (number and not number.isdigit()):
        raise ValueError(f"device is cpu, cuda, cuda:<number> or mps, not {device!r}")
    if not there[kind]() or (kind == "cuda" and int(number or 0) >= torch.cuda.device_count()):
        raise HistoweftError(f"Training was asked to run on {device}, but this machine has none. Use device cpu.")
    if kind == "cuda":
        return "gpu", [int(number or 0)]
    return kind, 1


def _summary(watch: Any, device: str, resumed: bool) -> Run:
    seconds = [epoch["seconds"] for epoch in watch.history]
    return Run(
        epochs=len(seconds),
        seconds=sum(seconds),
        seconds_per_epoch=statistics.median(seconds),
        best_epoch=watch.best_epoch,
        best_score=watch.best_score,
        history=watch.history,
        device=device,
        resumed=resumed,
    )


class _Epochs:
    """Batches whose random numbers depend on the seed and the epoch alone, not on what was drawn before."""

    def __init__(self, batches: Iterable[Any], seed: int, trainer: pl.Trainer, salt: int = 0):
        self._batches, self._seed, self._trainer, self._salt = batches, seed, trainer, salt

    def __len__(self) -> int:
        return len(self._batches)  # TypeError for what has no length, as Lightning expects

    def __iter__(self) -> Iterator[Any]:
        epoch = self._trainer.current_epoch
        if self._salt == 0:
            _reseed(self._seed, epoch)
        generator = getattr(self._batches, "generator", None)
        if generator is not None:
            generator.manual_seed(self._seed + epoch)
        if hasattr(self._batches, "set_epoch"):
            self._batches.set_epoch(epoch)
        yield from self._batches


def _reseed(seed: int, epoch: int) -> None:
    """Seed Python, numpy and torch, CUDA included, for one epoch."""
    import random

    import numpy as np
    import torch

    words = np.random.SeedSequence([seed, epoch]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


class _Watch:
    """What happens around an epoch: history, best weights, early stopping, checkpoints, progress.

    Parameters
    ----------
    monitor, mode, patience
        See `fit`.
    held_out
        Whether `monitor` chooses the epoch that is kept.
    checkpoint, facts
        Where to save, and what a run that goes on from it must share.
    epochs_told
        Epochs at most, for the lines of progress; 0 for none.
    state
        A checkpoint to go on from.
    """

    _KEPT = ("history", "best_epoch", "best_score", "best")

    def __init__(
        self,
        monitor: str,
        mode: str,
        patience: int | None,
        held_out: bool,
        checkpoint: Path | None,
        facts: dict[str, Any],
        epochs_told: int,
        state: dict[str, Any] | None,
    ):
        self.monitor, self.sign = monitor, 1 if mode == "max" else -1
        self.patience, self.held_out = patience, held_out
        self.checkpoint, self.facts = checkpoint, facts
        self.epochs_told, self.state = epochs_told, state
        self.history: list[dict[str, float]] = []
        self.best_epoch, self.best_score = 0, math.nan
        self.best: dict[str, torch.Tensor] | None = None
        self._start = self._saved = self._said = time.monotonic()

    def callback(self) -> pl.Callback:
        """Return this as Lightning wants it."""
        from pytorch_lightning.callbacks import LambdaCallback

        hooks = ("on_train_start", "on_train_epoch_start", "on_train_epoch_end")
        return LambdaCallback(**{hook: getattr(self, hook) for hook in hooks})

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Go on from a checkpoint."""
        if self.state is not None:
            vars(self).update(self.state["watch"])
            _load(self.state, trainer, module)
            self.state = None

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save, now and then: between two epochs nothing is half-done, schedulers have stepped, scores are complete."""
        now = time.monotonic()
        if self.checkpoint is not None and self.history and now - self._saved >= _SAVE_EVERY:
            watch = {name: getattr(self, name) for name in self._KEPT}
            _save(self.checkpoint, {"facts": self.facts, "watch": watch}, trainer, module)
            self._saved = time.monotonic()
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take note of the scores, and keep the weights if they are the best."""
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch + 1
        self._check(scores, epoch)
        self.history.append({"epoch": epoch, "seconds": time.monotonic() - self._start, **scores})
        score = scores.get(self.monitor, math.nan)
        if not self.held_out or self.best_epoch == 0 or self.sign * (score - self.best_score) > 0:
            self.best_epoch, self.best_score = epoch, score
            if self.held_out:
                self._keep(module)
        if self.patience is not None and epoch - self.best_epoch >= self.patience:
            trainer.should_stop = True
        self._tell(epoch, scores, last=trainer.should_stop or epoch == trainer.max_epochs)

    def restore(self, module: pl.LightningModule) -> None:
        """Put the best weights back."""
        if self.best is not None and self.best_epoch != len(self.history):
            module.load_state_dict(self.best)

    def _check(self, scores: dict[str, float], epoch: int) -> None:
        score = scores.get(self.monitor)
        if score is None and self.held_out:
            there = ", ".join(sorted(scores)) or "none"
            raise ValueError(f"monitor {self.monitor!r} was not logged; there are: {there}")
        if score is not None and not math.isfinite(score):
            hint = "Lower the learning rate, and look for values in the data that are not finite."
            raise HistoweftError(f"Training diverged: {self.monitor} is {score} in epoch {epoch}. {hint}")

    def _keep(self, module: pl.LightningModule) -> None:
        now = module.state_dict()
        if self.best is None:
            self.best = {name: value.detach().clone() for name, value in now.items()}
            return
        for name, value in now.items():
            self.best[name].copy_(value)

    def _tell(self, epoch: int, scores: dict[str, float], last: bool) -> None:
        if not self.epochs_told:
            return
        every = math.ceil(self.epochs_told / _LINES)
        if last or epoch == 1 or epoch % every == 0 or time.monotonic() - self._said >= _SAY_EVERY:
            self._said = time.monotonic()
            told = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
            _log.info("epoch %d of %d: %s (%.2f s)", epoch, self.epochs_told, told, self.history[-1]["seconds"])


def _facts(module: pl.LightningModule, **settings: Any) -> dict[str, Any]:
    """Return what two runs must share for one to continue the other, as values a checkpoint can hold."""
    return {
        "model": type(module).__name__,
        "parameters": json.dumps([[name, list(value.shape)] for name, value in module.state_dict().items()]),
        "hyper-parameters": json.dumps(dict(module.hparams), sort_keys=True, default=str),
        **settings,
    }


def _save(path: Path, more: dict[str, Any], trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Write the state between two epochs; only tensors and plain values, so that reading it runs no code."""
    import torch

    state = {
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "weights": module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [one.scheduler.state_dict() for one in trainer.lr_scheduler_configs],
    }
    with io.atomic(path) as partial:
        torch.save(state | more, partial)


def _load(state: dict[str, Any], trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Put a trainer that is about to start where `_save` left off.

    Lightning's own resuming also restores the inside of its loops, and depends on the hook it was saved in; between
    epochs the two counters are all there is to restore.
    """
    module.load_state_dict(state["weights"])
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    for one, saved in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
        one.scheduler.load_state_dict(saved)
    loop = trainer.fit_loop
    for progress in (loop.epoch_progress.current, loop.epoch_progress.total):
        progress.ready = progress.started = progress.processed = progress.completed = state["epoch"]
    loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = state["step"]


def _saved_state(path: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Read a checkpoint if it is there and belongs to this run; warn when it does not."""
    import torch

    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["facts"]
    except Exception as error:
        _log.warning("%s: not a checkpoint of this workflow (%s); training starts anew", path, type(error).__name__)
        return None
    other = [name for name in facts if found.get(name) != facts[name]]
    if other:
        _log.warning("%s: of a run with other %s; training starts anew", path, ", ".join(other))
        return None
    _log.info("%s: going on after epoch %d of a run that was stopped", path, state["epoch"])
    return state


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's banners, tips and advice out of the log."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torch\.utils\.data)")
            warnings.filterwarnings("ignore", message=".*(num_workers|Sparse CSR|does not have many workers).*")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Put torch's switches back to where they were: the trainer turns them for the whole process."""
    import torch

    mode, fill = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = fill
