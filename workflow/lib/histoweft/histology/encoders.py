"""Encoders: networks trained on images alone, here or elsewhere, that add dense maps to a pixel's context.

The config's ``histology: encoder`` is ``none``; ``pretrained``, the network this study trained on its own sections;
``timm:<name>``, weights from the hub; or ``timm:<name>@<file>``, weights from a file, which needs no network.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histoweft.errors import HistoweftError, InputError, nearest
from histoweft.histology.stain import Stain, normalise
from histoweft.histology.tissue import check_scale

if TYPE_CHECKING:
    import torch


ENCODER_UM = 0.5
"""Um per pixel that pathology encoders were trained at (20x)."""

MAPS = 32
"""Maps that an encoder's channels are reduced to."""

_log = logging.getLogger(__name__)

_WHERE = "histology: encoder"
_ALLOWED = "none, pretrained, timm:<name> or timm:<name>@<checkpoint file>"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_HUB = re.compile(r"hf[-_]hub:", re.IGNORECASE)
_ELSEWHERE = re.compile(r"(hf[-_]hub|local-dir):", re.IGNORECASE)

_MOST_ENLARGED = 4.0
"""Beyond this an enlarged image holds nothing that the encoder knows."""
_SAME_SCALE = 0.02
"""Relative difference in scale that is not worth resampling for."""
_PROJECTION_SEED = 20_240_229
"""Of the random projection: one constant, so that every section of every study is projected alike."""
_PADDED = 32
"""Pixels from a window's border that zero padding is felt."""
_OWN_WINDOW = 256
_BATCH = 8

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
_SWIGLU = {"mlp_layer": "timm.layers.SwiGLUPacked", "act_layer": "torch.nn.SiLU"}


# -------------------------------------------------------------------------------------------------------- the choice


@dataclass(frozen=True)
class Choice:
    """What the config asks for.

    Attributes
    ----------
    kind
        ``none``, ``pretrained`` or ``timm``.
    name
        In timm, or with ``hf-hub:`` on the hub; empty for the other kinds.
    path
        A local checkpoint, if one was given.
    """

    kind: str
    name: str = ""
    path: Path | None = None

    def __str__(self) -> str:
        return self.kind if self.kind != "timm" else f"timm:{self.name}" + (f"@{self.path}" if self.path else "")


def parse(text: Any) -> Choice:
    """Read the option ``histology: encoder``; imports nothing heavy, and does not look whether a file is there.

    Raises
    ------
    InputError
        It is none of the four forms.
    """
    if text in ("none", "pretrained"):
        return Choice(text)
    if not isinstance(text, str) or not text.startswith("timm:"):
        hint = nearest(text, ("none", "pretrained", "timm:")) if isinstance(text, str) else "Write it in quotes."
        raise InputError.one(_WHERE, repr(text), _ALLOWED, hint)
    name, at, path = text.removeprefix("timm:").partition("@")
    if not name or re.search(r"\s", name):
        raise InputError.one(_WHERE, repr(text), _ALLOWED, "After timm: comes a model's name, such as resnet50.")
    if "/" in name and not _ELSEWHERE.match(name):
        raise InputError.one(_WHERE, repr(text), _ALLOWED, f"A model of the hub is written timm:hf-hub:{name}.")
    if at and Path(path).suffix.lower() not in _SUFFIXES:
        hint = "After @ comes the file with the weights; revisions of the hub cannot be chosen."
        raise InputError.one(_WHERE, repr(text), f"a file ending in {', '.join(_SUFFIXES)} after @", hint)
    return Choice("timm", name, Path(path) if at else None)


# ------------------------------------------------------------------------------------------------ what is known of some


@dataclass(frozen=True)
class Known:
    """What this workflow knows of an encoder, so that its weights can be used from a file without the hub.

    Attributes
    ----------
    licence
        Of the weights, for the log and the report.
    architecture
        In timm; empty where the name says it.
    options
        Of the architecture; dotted names stand for classes of timm and torch.
    colours
        Mean and spread of red, green and blue that inputs are standardised with; None: timm's for the architecture.
    """

    licence: str
    architecture: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    colours: tuple[tuple[float, ...], tuple[float, ...]] | None = None


_GATED = "gated: accept the licence on the model's page"
_ACADEMIC = f"CC-BY-NC-ND-4.0, non-commercial research only; {_GATED}"
_OPTIMUS_OPTIONS = {"img_size": 224, "init_values": 1e-5}

KNOWN = {
    "resnet50": Known("Apache-2.0 (timm's a1_in1k weights; the ImageNet images have terms of their own)"),
    "hf-hub:mahmoodlab/uni": Known(_ACADEMIC, "vit_large_patch16_224", {"init_values": 1e-5}, _IMAGENET),
    "hf-hub:mahmoodlab/uni2-h": Known(
        _ACADEMIC,
        "vit_giant_patch14_224",
        {
            "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5, "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "reg_tokens": 8, **_SWIGLU,
        },
        _IMAGENET,
    ),
    "hf-hub:paige-ai/virchow": Known(
        f"Apache-2.0; {_GATED}",
        "vit_huge_patch14_224",
        {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", **_SWIGLU},
        _IMAGENET,
    ),
    "hf-hub:paige-ai/virchow2": Known(
        _ACADEMIC,
        "vit_huge_patch14_224",
        {"init_values": 1e-5, "mlp_ratio": 5.3375, "reg_tokens": 4, "global_pool": "", **_SWIGLU},
        _IMAGENET,
    ),
    "hf-hub:bioptimus/h-optimus-0": Known(
        "Apache-2.0", "vit_giant_patch14_reg4_dinov2", _OPTIMUS_OPTIONS, _OPTIMUS
    ),
    "hf-hub:bioptimus/h-optimus-1": Known(_ACADEMIC, "vit_giant_patch14_reg4_dinov2", _OPTIMUS_OPTIONS, _OPTIMUS),
    "hf-hub:1aurent/vit_base_patch16_224.owkin_pancancer": Known(
        "Owkin non-commercial licence (Phikon, in timm's format by a third party)",
        "vit_base_patch16_224",
        colours=_IMAGENET,
    ),
}  # fmt: skip
"""By name in lower case. docs/methods.md says where each licence was found."""


def licence_note(name: str) -> str:
    """Return the licence of an encoder's weights in words; a sentence that says so where it is not known here."""
    known = _known(name)
    return known.licence if known else "not known to this workflow: see the model's page"


def _known(name: str) -> Known | None:
    return KNOWN.get(name.lower().replace("hf_hub:", "hf-hub:"))


# --------------------------------------------------------------------------------------------------------- the encoder


@dataclass(frozen=True)
class _Backbone:
    """A network on windows.

    Attributes
    ----------
    look
        uint8 windows (n, window, window, 3) to float32 (n, channels, window / stride, window / stride).
    halo
        Cells along a window's sides that are not used.
    blend
        Cells over which one window passes into the next.
    """

    look: Callable[[np.ndarray], torch.Tensor]
    channels: int
    window: int
    stride: int
    halo: int
    blend: int


class Encoder:
    """Dense maps of an image, at its own resolution; see `load_encoder`.

    Attributes
    ----------
    names
        Of the maps.
    licence
        Of the weights.
    margin
        Image pixels around a strip that its maps depend on: cut with so much above and below, and told its place, a
        strip gives what the whole image gives.
    """

    def __init__(
        self,
        backbone: _Backbone,
        zoom: float,
        name: str,
        n_maps: int,
        licence: str,
        prepare: Callable[[np.ndarray, np.ndarray | None], np.ndarray] | None = None,
    ):
        self._backbone, self._zoom, self._prepare = backbone, zoom, prepare
        self._projection = projection(backbone.channels, n_maps) if backbone.channels > n_maps else None
        self.names = [f"{name}_{i}" for i in range(1, min(n_maps, backbone.channels) + 1)]
        self.licence = licence
        self.margin = math.ceil(backbone.window / zoom)

    def encode(self, rgb: np.ndarray, top: int = 0, mask: np.ndarray | None = None) -> np.ndarray:
        """Compute the maps of an image or a strip of one.

        Parameters
        ----------
        rgb
            (h, w, 3) uint8.
        top
            Row of the image that the strip starts at. Windows lie where they lie on the whole image, so that strips
            show no seam.
        mask
            (h, w) bool, tissue. Windows without any are not looked at, and 0 where no other window is. None: all of it.

        Returns
        -------
        maps x h x w, float32: bilinear between the centres of the network's cells.
        """
        scale = self._zoom / self._backbone.stride
        first = math.floor(top * scale)
        cells = self._cells(self._prepare(rgb, mask) if self._prepare else rgb, top, first, mask)
        above, down = _between(np.arange(top, top + rgb.shape[0]), scale, first, cells.shape[1])
        left, right = _between(np.arange(rgb.shape[1]), scale, 0, cells.shape[2])
        out = np.empty((len(cells), *rgb.shape[:2]), dtype=np.float32)
        for image, coarse in zip(out, cells):
            # Rows before columns: the array in between has only as many columns as there are cells.
            lines = coarse[above] + (coarse[np.minimum(above + 1, len(coarse) - 1)] - coarse[above]) * down[:, None]
            image[...] = lines[:, left]
            image += (lines[:, np.minimum(left + 1, lines.shape[1] - 1)] - image) * right
        return out

    def _cells(self, rgb: np.ndarray, top: int, first: int, mask: np.ndarray | None) -> np.ndarray:
        """Run the network over windows that overlap, and blend what it gives.

        Returns maps x rows x columns of cells; `first` is the row of cells that they start with.
        """
        import torch

        net = self._backbone
        rows = math.ceil((top + rgb.shape[0]) * self._zoom / net.stride) - first
        cols = math.ceil(rgb.shape[1] * self._zoom / net.stride)
        side = net.window // net.stride
        weight = _ramp(side, net.halo, net.blend)
        total, weights = np.zeros((len(self.names), rows, cols), np.float32), np.zeros((rows, cols), np.float32)
        places = [(y - first, x) for y in _starts(first, rows, side, net) for x in _starts(0, cols, side, net)]
        if mask is not None:
            places = [(y, x) for y, x in places if _touches(mask, y + first, x, top, net, self._zoom)]
        for number in range(0, len(places), _BATCH):
            batch = places[number : number + _BATCH]
            windows = np.stack([_crop(rgb, y + first, x, top, net, self._zoom) for y, x in batch])
            with torch.inference_mode():
                maps = net.look(windows)
                if self._projection is not None:
                    maps = torch.einsum("nchw,cm->nmhw", maps, torch.from_numpy(self._projection).to(maps.device))
                maps = maps.float().cpu().numpy()
            for (y, x), found in zip(batch, maps):
                # The parts of the window and of the image that lie on each other.
                here = tuple(slice(max(at, 0), min(at + side, n)) for at, n in ((y, rows), (x, cols)))
                there = tuple(slice(part.start - at, part.stop - at) for part, at in zip(here, (y, x)))
                total[(slice(None), *here)] += found[(slice(None), *there)] * weight[there]
                weights[here] += weight[there]
        total /= np.maximum(weights, np.finfo(np.float32).tiny)
        return total


def projection(channels: int, maps: int) -> np.ndarray:
    """Return a random orthonormal projection, channels x maps: the same on every call, so for every section.

    Nothing is learned from any image, and distances survive on average (Johnson and Lindenstrauss 1984).
    """
    drawn = np.random.default_rng(_PROJECTION_SEED).standard_normal((channels, maps))
    basis, upper = np.linalg.qr(drawn)
    # The factorisation is unique only up to signs.
    return (basis * np.sign(np.diag(upper))).astype(np.float32)


def _ramp(side: int, halo: int, blend: int) -> np.ndarray:
    """Return the weights of a window's cells, side x side: 0 on the halo, rising over `blend` cells to 1."""
    inside = np.arange(side) - halo
    line = np.clip(np.minimum(inside + 1, side - 2 * halo - inside) / (blend + 1), 0, 1).astype(np.float32)
    return line[:, None] * line


def _starts(first: int, cells: int, side: int, net: _Backbone) -> list[int]:
    """Return the first cell of each window that some of these cells need; a halo may lie off the image."""
    step = side - 2 * net.halo - net.blend
    lowest = max(0, (first - step - net.blend) // step + 1)
    return [step * i - net.halo for i in range(lowest, (first + cells - 1) // step + 1)]


def _crop(rgb: np.ndarray, y: int, x: int, top: int, net: _Backbone, zoom: float) -> np.ndarray:
    """Cut a window at a cell, enlarged or shrunk; the strip goes on beyond its sides as in a mirror."""
    from PIL import Image

    corner = [at * net.stride / zoom - off for at, off in ((y, top), (x, 0))]
    size = net.window / zoom
    # A cubic kernel looks two pixels far, of the coarser image.
    near = 0 if zoom == 1 else math.ceil(2 / min(zoom, 1)) + 1
    reach = [(math.floor(at) - near, math.ceil(at + size) + near) for at in corner]
    rows, cols = (_mirrored(np.arange(*span), n) for span, n in zip(reach, rgb.shape))
    part = rgb[rows[:, None], cols]
    if zoom == 1:
        return part
    low, left = (at - start for at, (start, _) in zip(corner, reach))
    around = (left, low, left + size, low + size)
    resized = Image.fromarray(part).resize((net.window, net.window), Image.Resampling.BICUBIC, box=around)
    return np.asarray(resized)


def _touches(mask: np.ndarray, y: int, x: int, top: int, net: _Backbone, zoom: float) -> bool:
    """Tell whether a window at a cell, or the cells next to it, hold tissue."""
    cell, size = net.stride / zoom, net.window / zoom
    area = []
    for corner in (y * cell - top, x * cell):
        area.append(slice(max(0, math.floor(corner - cell)), max(0, math.ceil(corner + size + cell))))
    return bool(mask[tuple(area)].any())


def _mirrored(at: np.ndarray, n: int) -> np.ndarray:
    at = at % (2 * n)
    return np.where(at < n, at, 2 * n - 1 - at)


def _between(pixels: np.ndarray, scale: float, first: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each pixel the cell before it and the share of the next one."""
    at = np.clip((pixels + 0.5) * scale - 0.5 - first, 0, cells - 1)
    low = at.astype(int)
    return low, (at - low).astype(np.float32)


def _zoom(um_per_px: float, wanted: float) -> float:
    """Return how much the image is enlarged for an encoder that expects `wanted` um per pixel."""
    zoom = check_scale(um_per_px) / wanted
    if abs(zoom - 1) < _SAME_SCALE:
        return 1.0
    if zoom > _MOST_ENLARGED:
        _log.warning("the image has %.3g um per pixel, the encoder expects %.3g: enlarged %g times, to %.3g um per "
                     "pixel only; what the encoder knows of cells does not apply at this scale",
                     um_per_px, wanted, _MOST_ENLARGED, um_per_px / _MOST_ENLARGED)  # fmt: skip
        return _MOST_ENLARGED
    if zoom > 1:
        _log.warning("the image has %.3g um per pixel, the encoder expects %.3g: enlarged %.3g times; "
                     "an image of finer resolution would show it more", um_per_px, wanted, zoom)  # fmt: skip
    return zoom


# ------------------------------------------------------------------------------------------------------------- loading


def load_encoder(
    choice: Choice,
    device: str,
    um_per_px: float,
    *,
    encoder_um_per_px: float = ENCODER_UM,
    n_maps: int = MAPS,
    stage: int | None = None,
    model: str | os.PathLike | None = None,
    stain: Stain | None = None,
) -> Encoder:
    """Load an encoder for images of one resolution.

    Parameters
    ----------
    choice
        Of kind ``pretrained`` or ``timm``.
    device
        ``cpu`` or ``cuda``; half precision on the latter only.
    um_per_px
        Of the images.
    encoder_um_per_px
        What a ``timm`` encoder expects. Finer images are shrunk, coarser ones enlarged, four times at most and with a
        warning. ``pretrained`` knows its own.
    n_maps
        Maps wanted; more channels than that are projected (see `projection`).
    stage
        Of a ``timm`` encoder: which of its feature levels to read, as `forward_intermediates` counts them (stages of a
        convolutional network, blocks of a transformer). None: what comes before pooling.
    model
        For ``pretrained``: the file that `autoencoder.save` wrote.
    stain
        For ``pretrained``: of the section, so that it looks as the sections in pretraining did. ``timm`` encoders see
        the image as it is.

    Raises
    ------
    InputError
        There is no such model or checkpoint, or the weights belong to another architecture.
    HistoweftError
        The weights cannot be had, or timm is missing.
    ValueError
        An option is out of range, or the choice is ``none``.
    """
    if n_maps < 1 or not encoder_um_per_px > 0:
        raise ValueError(f"n_maps and encoder_um_per_px are positive, not {n_maps} and {encoder_um_per_px}")
    if choice.kind == "pretrained" and model is not None:
        return _own(model, device, um_per_px, n_maps, stain)
    if choice.kind != "timm":
        raise ValueError(f"nothing to load for encoder {choice} and model {model}")
    zoom = _zoom(um_per_px, encoder_um_per_px)
    network, licence = _create(choice)
    backbone = _timm_backbone(network, choice, device, stage)
    short = _ELSEWHERE.sub("", choice.name).rstrip("/").rsplit("/", 1)[-1].split(".")[0].lower()
    encoder = Encoder(backbone, zoom, short, n_maps, licence)
    _log.info("encoder %s: %d channels, %d maps, a cell every %.3g um, windows of %d px", choice, backbone.channels,
              len(encoder.names), backbone.stride * um_per_px / zoom, backbone.window)  # fmt: skip
    _log.info("licence of its weights: %s", licence)
    return encoder


def _own(path: str | os.PathLike, device: str, um_per_px: float, n_maps: int, stain: Stain | None) -> Encoder:
    """Load the network of this study."""
    from histoweft.histology.autoencoder import as_images, load

    network, meta = load(path)
    network = network.to(device)
    try:
        zoom, goal = _zoom(um_per_px, meta["um_per_px"]), Stain.from_json(meta["target"])
    except KeyError as error:
        hint = "Delete it and run again."
        raise InputError.one(path, f"a network without {error}", "one from the rule pretrain", hint) from error
    fine = 2  # the finest stage; coarser ones are repeated
    half = network.stride // fine
    backbone = _Backbone(
        look=lambda windows: network.features(as_images(windows).to(device), fine),
        channels=network.features(as_images(np.zeros((32, 32, 3), np.uint8)).to(device), fine).shape[1],
        window=_OWN_WINDOW,
        stride=fine,
        # In whole cells of the coarsest stage: with its margin cut off, a window gives what the whole image does.
        halo=math.ceil(network.margin / network.stride) * half,
        blend=0,
    )
    prepare = None if stain is None else lambda rgb, mask: normalise(rgb, stain, goal, mask)
    return Encoder(backbone, zoom, "pretrained", n_maps, "trained by this study on its own images", prepare)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise HistoweftError(
            f"{_WHERE}: timm:... needs the package timm, which this environment does not have ({error}). Use the "
            "environment envs/histology.yaml, or encoder: pretrained or none."
        ) from error
    return timm


def _create(choice: Choice) -> tuple[torch.nn.Module, str]:
    """Build the architecture and give it its weights; return it and the licence of the weights."""
    timm, name, known = _timm(), choice.name, _known(choice.name)
    elsewhere = bool(_ELSEWHERE.match(name))
    if not elsewhere and not timm.is_model(name.split(".")[0]):
        hint = nearest(name.split(".")[0], timm.list_models()) or "timm.list_models() lists them."
        raise InputError.one(_WHERE, repr(str(choice)), "a model of timm, or timm:hf-hub:<owner>/<model>", hint)
    options = {key: _resolved(value) for key, value in known.options.items()} if known else {}
    options |= {"num_classes": 0}
    if choice.path is None:
        network = _from_hub(timm, choice, options)
    else:
        if elsewhere and not known:
            hint = "Give the architecture's name in timm instead, e.g. timm:vit_large_patch16_224@weights.safetensors."
            raise InputError.one(_WHERE, repr(str(choice)), "a model whose architecture needs no hub", hint)
        weights = _read_weights(choice.path)
        network = timm.create_model((known and known.architecture) or name, pretrained=False, **options)
        _give(network, weights, choice)
    licence = known.licence if known else _timm_licence(network, choice)
    return network, licence


def _from_hub(timm: Any, choice: Choice, options: dict[str, Any]) -> torch.nn.Module:
    try:
        return timm.create_model(choice.name, pretrained=True, **options)
    except Exception as error:  # the hub's client, its transport and timm each raise kinds of their own
        page = "the model's page"
        if _HUB.match(choice.name):
            page = f"https://huggingface.co/{_HUB.sub('', choice.name)}"
        raise HistoweftError(
            f"{_WHERE}: the weights of {choice} cannot be had: {_reason(error)}. This machine may have no access to "
            f"the hub. Download the checkpoint elsewhere and give encoder: timm:{choice.name}@<file>; or, if the model "
            f"is gated, accept its licence on {page} and set HF_TOKEN; or use encoder: pretrained or none."
        ) from error


_REASONS = {
    "GatedRepoError": "it is gated, and no token with access to it was given",
    "RepositoryNotFoundError": "the hub has no such model, or does not show it without a token",
    "OfflineModeIsEnabled": "the hub's client is set to work offline",
    "LocalEntryNotFoundError": "the hub cannot be reached, and the cache has no copy",
    "ConnectError": "the hub cannot be reached",
    "ConnectionError": "the hub cannot be reached",
    "URLError": "the server with the weights cannot be reached",
}


def _reason(error: BaseException) -> str:
    """Say in a few words why weights did not come."""
    chain, one = [], error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    for name, said in _REASONS.items():
        if name in kinds:
            return said
    for one in chain:
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status in (401, 403):
            return f"the hub refused access (HTTP {status})"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:160]}"


def _timm_licence(network: torch.nn.Module, choice: Choice) -> str:
    said = network.pretrained_cfg.get("license")
    return f"{said}, by timm's own entry" if said and choice.path is None else licence_note(choice.name)


def _resolved(value: Any) -> Any:
    """Turn the dotted name of a class into the class."""
    import torch.nn

    timm = _timm()
    if isinstance(value, str) and "." in value:
        module, name = value.rsplit(".", 1)
        return getattr({"timm.layers": timm.layers, "torch.nn": torch.nn}[module], name)
    return value


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors; runs no code from the file."""
    import torch

    if not path.is_file():
        raise InputError.one(_WHERE, path, "a checkpoint file", "Relative paths start where the workflow runs.")
    hint = "Save the model's state_dict alone, best as .safetensors."
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # foreign files make the readers raise nearly anything
        said = (str(error).strip().splitlines() or [""])[0][:160]
        raise InputError.one(path, f"{type(error).__name__}: {said}", "a file of plain tensors", hint) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(torch.is_tensor(value) for value in found.values()):
        raise InputError.one(path, "something other than named tensors", "a state_dict", hint)
    if all(key.startswith("module.") for key in found):
        found = {key.removeprefix("module."): value for key, value in found.items()}
    return found


def _give(network: torch.nn.Module, weights: dict[str, torch.Tensor], choice: Choice) -> None:
    """Load weights, every one of them; only a classifier on top is left out."""
    heads = network.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    own = network.state_dict()
    weights = {
        key: value
        for key, value in weights.items()
        if key in own or not key.startswith(tuple(f"{head}." for head in heads))
    }
    faults = []
    for words, keys in (("missing", own.keys() - weights.keys()), ("unknown", weights.keys() - own.keys())):
        if keys:
            faults.append(f"{len(keys)} {words} ({_some(keys)})")
    shapes = [
        f"{key} {tuple(weights[key].shape)} for {tuple(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if weights[key].shape != own[key].shape
    ]
    if shapes:
        faults.append(f"{len(shapes)} of another shape ({_some(shapes)})")
    if faults:
        hint = "Name the architecture that the checkpoint was made with before the @."
        raise InputError.one(choice.path, f"tensors that do not fit: {'; '.join(faults)}",
                             f"the {len(own)} of timm:{choice.name}", hint)  # fmt: skip
    network.load_state_dict(weights)


def _some(names: Any) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _timm_backbone(network: torch.nn.Module, choice: Choice, device: str, stage: int | None) -> _Backbone:
    """Put a timm model to work on windows of the size it was made for."""
    import torch

    expected = _timm().data.resolve_model_data_config(network)
    known = _known(choice.name)
    colours = (known and known.colours) or (expected["mean"], expected["std"])
    _log.info("encoder %s: inputs standardised with mean %s and spread %s", choice, *colours)
    mean, spread = (255 * torch.tensor(part, device=device).view(1, 3, 1, 1) for part in colours)
    network = network.to(device).eval()

    def look(windows: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(windows).to(device).permute(0, 3, 1, 2).float()
        with torch.autocast("cuda", torch.float16, enabled=device.startswith("cuda")):
            return _feature_map(network, (x - mean) / spread, stage).float()

    size = max(expected["input_size"][1:])
    transformer = hasattr(network, "patch_embed")
    # Convolutions take any size, and large windows have less border; where theirs is no multiple of the stride they
    # round.
    tries = (size,) if transformer else (2 * math.ceil(size / 32) * 32, math.ceil(size / 32) * 32, size)
    for window in dict.fromkeys(tries):
        found, fault = _probe(look, window)
        if found is None:
            continue
        side = found.shape[-1]
        if found.shape[-2] == side > 1 and window % side == 0:
            # The zeros that convolutions put around a window show as a lattice if its border is used.
            halo = 0 if transformer else math.ceil(_PADDED * side / window)
            return _Backbone(look, found.shape[1], window, window // side, halo, max(1, (side - 2 * halo) // 5))
        fault = f"{tuple(found.shape[1:])} values for a window of {window} px"
    raise HistoweftError(
        f"{_WHERE}: {choice} gives no features on a regular grid ({fault}). Choose another stage or encoder."
    )


def _probe(look: Callable[[np.ndarray], torch.Tensor], window: int) -> tuple[torch.Tensor | None, str]:
    """Return what a network gives for a window of this size, or what it said."""
    import torch

    try:
        with torch.inference_mode():
            return look(np.zeros((1, window, window, 3), np.uint8)), ""
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # models without dense features, of fixed size or without such a stage raise anything
        return None, f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"


def _feature_map(network: torch.nn.Module, x: torch.Tensor, stage: int | None) -> torch.Tensor:
    """Return what a timm model sees, (n, channels, rows, columns)."""
    if stage is not None:
        return network.forward_intermediates(x, indices=[stage], intermediates_only=True, output_fmt="NCHW")[0]
    out = network.forward_features(x)
    if out.ndim == 3:
        # Class and register tokens stand for no place.
        out = out[:, getattr(network, "num_prefix_tokens", 0) :]
        side = math.isqrt(out.shape[1])
        return out.transpose(1, 2).unflatten(2, (side, -1))
    return out.permute(0, 3, 1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else out


# ------------------------------------------------------------------------------------------------- the study's network
