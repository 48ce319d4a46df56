"""Whether an image belongs to its section and shows tissue: its size, the way it is turned, its contrast."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histoweft.errors import Faults, InputError
from histoweft.ingest import alignment
from histoweft.ingest.section import Discovery, Notes

if TYPE_CHECKING:
    import numpy as np

Size = tuple[float, float]

MOST_OFF = 0.01
"""Sizes that belong together differ by less; whole pixels are allowed for beside it."""
FLAT = 12
"""An image whose pixels nearly all lie within so many codes of 255 shows nothing."""
GREY = 8
"""Largest difference between red, green and blue in an image without colours."""
DARK, BRIGHT = 40, 180
"""Codes below which a pixel is black, and above which it may be glass."""
LOOK_PX = 1000
"""Longest side at which an image is looked at."""

TURNED = {
    2: "mirrored left to right", 3: "turned by 180 degrees", 4: "mirrored top to bottom",
    5: "mirrored on its diagonal", 6: "turned by 90 degrees clockwise", 7: "mirrored on its other diagonal",
    8: "turned by 90 degrees anticlockwise",
}  # fmt: skip

# --------------------------------------------------------------------------------------------- before the first job


def planned(found: Discovery, where: str, own_scale: float = 0.0) -> Faults:
    """Look at the header of a sample's image, and at what says where it lies, before any job runs.

    Parameters
    ----------
    found
        Files that exist.
    where
        How faults name the sheet line.
    own_scale
        The image's scale that the sheet gives; 0 for none.

    Returns
    -------
    Faults
        Empty also where the libraries that read images are missing: the job looks again.
    """
    faults = Faults()
    try:
        from histoweft.ingest import image
    except ImportError:
        return faults
    if "alignment" in found.roles and found.roles["alignment"].is_file():
        _gather(faults, lambda: alignment.read(found.roles["alignment"]))
    if not isinstance(found.image, Path) or not found.image.is_file() or found.image.suffix.lower() == ".gz":
        return faults  # what is packed is looked at by its job
    before = len(faults.items)
    _gather(faults, lambda: image.image_size(found.image))
    if len(faults.items) == before:
        faults.extend(found.image_faults)
    if "scalefactors" in found.roles and len(faults.items) == before:
        _gather(faults, lambda: _planned_scales(found, own_scale, faults))
    return faults


def _gather(faults: Faults, look: Callable[[], Any]) -> None:
    """Run one check; what cannot be opened here is judged by the job that needs it."""
    try:
        look()
    except InputError as error:
        faults.extend(error.faults)
    except (OSError, ImportError, ValueError):
        return


def _planned_scales(found: Discovery, own_scale: float, faults: Faults) -> None:
    from histoweft.ingest import tables

    check_scales(found, tables.read_json(found.roles["scalefactors"]), own_scale, faults)


# ----------------------------------------------------------------------------------------------- size against scale


def check_scales(found: Discovery, factors: dict, own_scale: float, faults: Faults) -> Size | None:
    """Hold the sizes of Space Ranger's images and of the full-resolution image against its scale factors.

    Parameters
    ----------
    found
        With the image, its kind and the role ``scalefactors``.
    factors
        What the scale factor file says.
    own_scale
        The image's scale that the sheet gives; 0 for none.
    faults
        Two images that cannot be of one picture are added here.

    Returns
    -------
    tuple of float, or None
        Width and height of the full-resolution picture as Space Ranger's images say.
    """
    from histoweft.ingest import image

    table = found.roles.get("scalefactors")
    if table is None or not isinstance(factors, dict):
        return None
    full: dict[Path, Size] = {}
    pixel: dict[Path, float] = {}  # full-resolution pixels that one pixel of the image is: sizes are rounded to whole
    images = _space_ranger_images(table)
    if found.image_kind in images and found.image is not None:
        images[found.image_kind] = found.image  # the sheet may name it in another folder
    for kind, path in images.items():
        factor = factors.get(f"tissue_{kind}_scalef")
        if isinstance(factor, (int, float)) and factor > 0:
            try:
                width, height = image.image_size(path)
            except (InputError, OSError):
                continue  # an image that is used is judged by itself
            full[path], pixel[path] = (width / factor, height / factor), 1 / factor
    paths = list(full)
    if len(paths) == 2 and not _agree(full[paths[0]], full[paths[1]], max(pixel.values())):
        ratio = full[paths[1]][0] / full[paths[0]][0]
        faults.add(
            str(paths[0]),
            f"an image of a picture of {_px(full[paths[0]])} pixels by its scale factor, while {paths[1].name} is of "
            f"one of {_px(full[paths[1]])} ({ratio:.3g} times as wide)",
            f"images that fit the scale factors in {table.name}",
            "One of the three files is of another section, or was resized: take all from one folder.",
        )
        return None
    frame = full[paths[0]] if paths else None
    if frame is not None and found.image_kind == "fullres" and found.image is not None:
        _check_full(found.image, frame, own_scale, paths[0], table, pixel[paths[0]], faults)
    return frame


def _space_ranger_images(table: Path) -> dict[str, Path]:
    """Return Space Ranger's own images beside its scale factors, of the same prefix; hires first."""
    prefix = re.split(r"scalefactors_json", table.name, maxsplit=1, flags=re.I)[0]
    pattern = re.compile(rf"{re.escape(prefix)}tissue_(hires|lowres)_image\.(?:png|jpe?g|tiff?)(?:\.gz)?", re.I)
    try:
        matches = [(match, p) for p in sorted(table.parent.iterdir()) if (match := pattern.fullmatch(p.name))]
    except OSError:
        return {}
    found = {match.group(1).lower(): path for match, path in matches if path.is_file()}
    return {kind: found[kind] for kind in ("hires", "lowres") if kind in found}


def _agree(one: Size, other: Size, rounding: float) -> bool:
    return all(abs(a - b) <= max(MOST_OFF * max(a, b), 1.001 * rounding) for a, b in zip(one, other))


def _px(size: Size) -> str:
    return f"{size[0]:.0f} x {size[1]:.0f}"


def _check_full(
    path: Path, frame: Size, own_scale: float, reference: Path, table: Path, rounding: float, faults: Faults
) -> None:
    """Refuse a full-resolution image of another size than the one that the analysis was made on."""
    from histoweft.ingest import image

    try:
        stored, shown = image.image_size(path, turned=False), image.image_size(path)
    except (InputError, OSError):
        return  # said by the check of the image itself
    scale = own_scale or 1.0
    if any(_agree((w / scale, h / scale), frame, max(rounding, 1 / scale)) for w, h in (stored, shown)):
        return
    ratio = frame[0] / shown[0]
    if own_scale:
        # An image that was cropped has a scale of its own all the same, which the sheet vouches for.
        if abs(ratio * shown[1] / frame[1] - 1) <= MOST_OFF:
            said = f"{reference.name} and {table.name} say of an image of {_px(shown)} pixels"
            hint = "image_scale is pixels of the image per pixel of the picture that was analysed."
            faults.add(str(path), f"image_scale {own_scale:g}", f"about {1 / ratio:.5g}, as {said}", hint)
        return
    faults.add(
        str(path),
        f"{_px(shown)} pixels",
        f"about {_px(frame)}, as {reference.name} and {table.name} say of the picture that was analysed",
        _magnification(ratio, frame[1] / shown[1], path, image.image_size(reference) == shown, reference),
    )


def _magnification(ratio: float, other: float, path: Path, copied: bool, reference: Path) -> str:
    if abs(ratio / other - 1) > MOST_OFF:
        return "Its sides are in another proportion: it was cropped, turned, or is of another section."
    scale = f"write {1 / ratio:.5g} in the column image_scale"
    if copied:
        return f"It has the size of {reference.name}: {scale}, or leave the column image empty."
    factor, word = (ratio, "smaller") if ratio > 1 else (1 / ratio, "larger")
    exact = f"{round(factor)} times" if abs(factor / round(factor) - 1) < MOST_OFF else f"{factor:.3g} times"
    return f"{path.name} is {exact} {word} than that picture: if it shows the same, {scale}."


def check_own_pixel(
    path: Any, mpp: float, scale: float, vouched: bool, faults: Faults, notes: Notes, tolerance: float = 0.15
) -> None:
    """Hold what an image says of its pixels against the places: a scan at another magnification fits them nowhere.

    Parameters
    ----------
    path
        The image.
    mpp
        Micrometres per full-resolution pixel of the section; NaN unknown.
    scale
        Pixels of the image per full-resolution pixel.
    vouched
        Whether the sheet, or the size of Space Ranger's images, vouches for it: then a contradiction is a warning.
    faults, notes
        An exact other magnification is a fault, any other contradiction a warning.
    tolerance
        Relative difference that is let pass.
    """
    from histoweft.ingest import image

    try:
        own = image.image_mpp(path)
    except InputError as error:
        notes.add("pixel_size", f"the image's own pixel size is not used: {error.faults[0].found}")
        return
    expected = mpp / scale
    ratio = expected / own
    if not ratio > 0 or abs(ratio - 1) <= tolerance:
        return
    name = getattr(path, "name", str(path))
    said = f"{own:.4g} um per pixel by its own metadata, where the places give {expected:.4g}"
    times = ratio if ratio > 1 else 1 / ratio
    if vouched or round(times) not in (2, 4, 8, 16) or abs(times / round(times) - 1) > 0.05:
        notes.add("pixel_size", f"{name} has {said}: is it the picture that was analysed?")
        return
    faults.add(
        str(path),
        said,
        "the picture that was analysed",
        f"It is {round(times)} times {'finer' if ratio > 1 else 'coarser'}: give the one that was analysed, or write "
        f"{scale * ratio:.5g} in the column image_scale if it shows the same; or mpp, if its metadata are wrong.",
    )


# -------------------------------------------------------------------------------------------------- orientation


def settle(
    path: Any, xy: np.ndarray, scale: float, frame: Size | None, notes: Notes
) -> tuple[tuple[int, int] | None, int]:
    """Decide whether an image's orientation tag is applied, and say so.

    The places of an analysis belong to the image as its software read it: where only one of the two sizes holds them
    (or is that of Space Ranger's own images), that one is taken; else the tag is applied, as viewers do.

    Parameters
    ----------
    path
        The image.
    xy
        (n, 2) places in full-resolution pixels.
    scale
        Pixels of the image per full-resolution pixel.
    frame
        Width and height of the full-resolution picture, from other files; None unknown.
    notes
        What is done with a tag is noted here.

    Returns
    -------
    size
        Width and height as used.
    orientation
        Tag to turn the picture by; 1 for none.
    """
    from histoweft.ingest import image

    tag = image.orientation(path)
    stored, shown = image.image_size(path, turned=False), image.image_size(path)
    if tag == 1:
        return stored, 1
    name = getattr(path, "name", str(path))
    told = f"{name} says that it is to be shown {TURNED[tag]} (orientation tag {tag})"
    fits = [_holds(size, xy, scale, frame) for size in (stored, shown)]
    if stored != shown and fits == [True, False]:
        notes.add("orientation", f"{told}: left as it is stored, as the places only fit it so")
        return stored, 1
    proof = "the places only fit it so" if stored != shown and fits == [False, True] else "as viewers do"
    doubt = "" if proof.startswith("the") else (
        "; nothing in the files tells whether the places were measured on the image turned or not: see that the spots "
        "lie on the tissue, or save the image without the tag"
    )  # fmt: skip
    notes.add("orientation", f"{told}: turned, {proof}{doubt}")
    return shown, tag


def _holds(size: Size, xy: np.ndarray, scale: float, frame: Size | None) -> bool:
    """Return whether an image of this size can be the one that the places were measured on."""
    if frame is not None and not _agree((size[0] / scale, size[1] / scale), frame, 1 / scale):
        return False
    if len(xy) == 0:
        return True
    low, high = xy.min(axis=0) * scale, xy.max(axis=0) * scale
    return bool((low >= 0).all() and (high <= size).all())


# ------------------------------------------------------------------------------------------------ what is to be seen


def tissue_like(rgb: np.ndarray) -> np.ndarray:
    """Return which pixels are coloured or dark, as stained tissue is, and no glass: (h, w) bool."""
    import numpy as np

    lightest = rgb.max(axis=2).astype(np.int16)
    chroma = lightest - rgb.min(axis=2)
    return (chroma > 20) | (lightest < BRIGHT)


def look(rgb: np.ndarray, xy: np.ndarray | None, notes: Notes, name: str) -> None:
    """Warn of an image that shows nothing, shows light on black, or shows its tissue elsewhere than the spots.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8, the image made small.
    xy
        (n, 2) places in its pixels; None: no places.
    notes
        Warnings are added here.
    name
        What the image is called.
    """
    import numpy as np

    light = rgb.astype(np.float32).mean(axis=2)
    low, high = np.percentile(rgb.reshape(-1, 3), [0.5, 99.5], axis=0)
    if (high - low).max() < FLAT:
        notes.add(
            "blank_image",
            f"{name} shows nothing: nearly all of its pixels have one colour ({', '.join(f'{v:.0f}' for v in high)})",
        )
        return
    if np.median(light) < DARK and (light > 200).mean() < 0.2:
        notes.add(
            "dark_image",
            f"{(light < DARK).mean():.0%} of {name} is black. Light on black is fluorescence, which is no H&E: give "
            "the brightfield image. An H&E that was cut out needs its background white, as glass is",
        )
        return
    if (rgb.max(axis=2).astype(int) - rgb.min(axis=2)).max() < GREY:
        notes.add("grey_image", f"{name} has no colours: an H&E has two, and stains cannot be told apart without them")
    tissue = tissue_like(rgb)
    if tissue.mean() < 0.002:
        notes.add("no_tissue", f"{name} shows hardly any tissue: {tissue.mean():.2%} of it is no bright glass")
        return
    if xy is not None and len(xy):
        _under_spots(tissue, xy, notes, name)


def check_resolution(um_per_px: float, expected: float | None, notes: Notes, name: str) -> None:
    """Warn of an image that is too coarse for the encoder of the histology stage.

    Parameters
    ----------
    um_per_px
        Of the working image; NaN unknown.
    expected
        What the encoder was trained at; None: no encoder.
    """
    if expected and um_per_px > expected * 1.02:
        notes.add(
            "coarse_image",
            f"{name} has {um_per_px:.3g} um per pixel, the encoder expects {expected:g}: its pixels are enlarged "
            f"{min(um_per_px / expected, 4):.3g} times, which adds no detail; give the full-resolution image, or set "
            "histology.encoder to none or pretrained",
        )


def _under_spots(tissue: np.ndarray, xy: np.ndarray, notes: Notes, name: str) -> None:
    """Warn where spots lie on tissue no more often than anything else in the image does."""
    import numpy as np

    at = np.floor(xy).astype(int)
    inside = ((at >= 0) & (at < tissue.shape[::-1])).all(axis=1)
    if not inside.any():
        return
    under = tissue[at[inside, 1], at[inside, 0]].mean()
    if under < 0.5 and under <= tissue.mean():
        notes.add(
            "tissue_elsewhere",
            f"only {under:.0%} of the spots lie on tissue in {name}, {tissue.mean():.0%} of which is tissue: is it the "
            "image of this section, turned as the spots are?",
        )
