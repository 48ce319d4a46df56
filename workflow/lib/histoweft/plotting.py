"""Pictures every stage shares: category colours, values on the tissue, scale bars, figures without pyplot."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from histoweft.places import spacing

UNLABELLED = "#d4d4d4"
"""Colour of what has no value: missing numbers, missing or refused labels."""

MAX_DISCS = 30_000
"""Above this many points a tissue is drawn as rasterised dots instead of discs to scale."""

VECTOR = ("pdf", "svg")
"""Kinds of vector figures that can be drawn beside a png."""

MAX_IMAGE_SIDE = 2_000
"""Longest side, in pixels, of the image patch that is handed to matplotlib."""

# Six hues of Okabe and Ito (Color Universal Design, 2008), then, one after the other, the colour that stays
# farthest from all before it (Oklab distance, the smallest over normal, protanopic and deuteranopic sight as
# simulated by Machado et al. 2009) and from the light grey of the unlabelled.
_PALETTE = (
    "#0072b2 #e69f00 #009e73 #cc79a7 #d55e00 #56b4e9 #791818 #313d79 "
    "#cee700 #5586ff #924955 #31ce86 #243dc2 #c2180c #3161e7 #b63192 "
    "#b6e792 #790055 #79ceff #f3556d #79c2c2 #009edb #006d79 #c2ce55 "
    "#db8631 #00f3ff #79249e #55610c #1886ce #ce4949 #863155 #86dbaa"
).split()

UNKNOWN = "unknown"
"""Name of what was looked at and refused a label."""

_NO_LABEL = {"", "nan", "none", "<na>", "na", "unlabelled", "unlabeled"}


def _is_unlabelled(category: object) -> bool:
    if category is None or category is pd.NA or (isinstance(category, float) and math.isnan(category)):
        return True
    return str(category).strip().casefold() in _NO_LABEL


def _natural(category: str) -> tuple:
    """Sort key that puts "2" before "10", and words after numbers."""
    try:
        return (0, float(category), category)
    except ValueError:
        return (1, 0.0, category)


def category_colours(categories: Sequence[str]) -> dict[str, str]:
    """Give each category a colour that also colour-blind readers can tell from the others.

    Parameters
    ----------
    categories
        Names in the order wanted; repeated names count once. Missing values and ``"unlabelled"`` become light
        grey and use up no colour.

    Returns
    -------
    dict
        Category (as text) to ``#rrggbb``. The same order gives the same colours. Beyond 32 categories the
        colours repeat.
    """
    colours: dict[str, str] = {}
    used = 0
    for category in categories:
        name = str(category)
        if name in colours:
            continue
        if _is_unlabelled(category):
            colours[name] = UNLABELLED
        else:
            colours[name] = _PALETTE[used % len(_PALETTE)]
            used += 1
    return colours


def shared_colours(names: Iterable[object]) -> dict[str, str]:
    """Give each group of a study a colour that depends on the set of groups alone, not on a section's share of them.

    Parameters
    ----------
    names
        Groups of all sections, in any order. Missing values and `UNKNOWN` become light grey and use up no colour.

    Returns
    -------
    dict
        Group (as text) to ``#rrggbb``, numbers first and by value, `UNKNOWN` last.
    """
    order = sorted({str(name) for name in names if not _is_unlabelled(name)}, key=_natural)
    known = category_colours([name for name in order if name != UNKNOWN])
    return known | ({UNKNOWN: UNLABELLED} if UNKNOWN in order else {})


def new_figure(ncols: int = 1, nrows: int = 1, panel: tuple[float, float] = (4.2, 4.0)):
    """Start a figure that pyplot does not know of: no global state, no window, safe in any thread.

    Parameters
    ----------
    ncols, nrows
        Grid of panels.
    panel
        Width and height of one panel in inches.

    Returns
    -------
    tuple
        ``(figure, axes)``; ``axes`` is always a 2-D array, nrows x ncols (``axes.flat``, ``axes[0, 0]``).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(panel[0] * ncols, panel[1] * nrows), layout="constrained", facecolor="white")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(nrows, ncols, squeeze=False)


def save(fig, path: str | Path, dpi: int = 140) -> None:
    """Write a figure as png, svg or pdf (by the suffix), cut to its content, and let go of its memory.

    The file appears under its name only when it is complete, and holds no date, so the same figure gives the
    same file. A png gets a vector figure beside it where the environment variable ``HISTOWEFT_VECTOR`` names a kind
    (option ``report.vector``).

    Parameters
    ----------
    fig
        A matplotlib figure.
    path
        Where to; missing folders are made. Suffix ``.png``, ``.svg`` or ``.pdf``.
    dpi
        Dots per inch of a png, and of the rasterised layers of an svg or pdf.

    Raises
    ------
    ValueError
        The suffix is none of the three.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in {"png", "svg", "pdf"}:
        raise ValueError(f"{path}: a figure is saved as .png, .svg or .pdf, not {path.suffix or 'without a suffix'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = os.environ.get("HISTOWEFT_VECTOR", "none") if kind == "png" else "none"
    for file in [path] + ([path.with_suffix(f".{beside}")] if beside in VECTOR else []):
        _write(fig, file, dpi)
    fig.clear()


def _write(fig, path: Path, dpi: int) -> None:
    """Write a figure as one file, whole or not at all."""
    import matplotlib

    kind = path.suffix.lower().lstrip(".")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with matplotlib.rc_context({"svg.hashsalt": "histoweft", "svg.fonttype": "none", "pdf.fonttype": 42}):
            fig.savefig(draft, format=kind, dpi=dpi, bbox_inches="tight", pad_inches=0.08, metadata=metadata)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def nice_length(target: float) -> float:
    """Return the length of the form 1, 2 or 5 times a power of ten that is nearest to `target` (by ratio)."""
    if not (math.isfinite(target) and target > 0):
        raise ValueError(f"a scale bar needs a positive length, not {target}")
    power = math.floor(math.log10(target))
    choices = [m * 10.0**p for p in (power - 1, power, power + 1) for m in (1, 2, 5)]
    return min(choices, key=lambda c: abs(math.log(c / target)))


def _say_length(um: float) -> str:
    if um >= 1_000:
        return f"{um / 1_000:g} mm"
    return f"{um:g} µm" if um >= 1 else f"{um * 1_000:g} nm"


def scale_bar(ax, um_per_unit: float) -> float:
    """Draw a scale bar under the axes, about a fifth of their width.

    Call it when the limits of the axes are final. The bar lies below the picture, so it hides nothing and is
    readable on any stain.

    Parameters
    ----------
    ax
        Axes whose x units are known in micrometres.
    um_per_unit
        Micrometres per unit of x.

    Returns
    -------
    float
        Length of the bar in micrometres.
    """
    from matplotlib.transforms import blended_transform_factory

    left, right = sorted(ax.get_xlim())
    um = nice_length((right - left) * um_per_unit / 5)
    transform = blended_transform_factory(ax.transData, ax.transAxes)
    start = left + 0.02 * (right - left)
    end = start + um / um_per_unit
    ax.plot(
        [start, end], [-0.02, -0.02], transform=transform, color="black", linewidth=2.5,
        solid_capstyle="butt", clip_on=False, scalex=False, scaley=False, gid="scale_bar",
    )  # fmt: skip
    ax.annotate(
        _say_length(um), xy=((start + end) / 2, -0.02), xycoords=transform, xytext=(0, -4),
        textcoords="offset points", ha="center", va="top", fontsize=8, annotation_clip=False,
    )  # fmt: skip
    return um


def _as_values(values, n: int) -> tuple[np.ndarray, dict[str, str] | None]:
    """Return numbers and None, or names and the colours of those shown, for the two kinds of values of a tissue."""
    series = values if isinstance(values, pd.Series) else pd.Series(values)
    if len(series) != n:
        raise ValueError(f"{len(series)} values for {n} positions")
    numeric = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    if numeric:
        return series.to_numpy(dtype=float, na_value=np.nan), None
    if isinstance(series.dtype, pd.CategoricalDtype):
        # Categories that this section lacks keep their colours, so that the others have those of the next section.
        order = [str(c) for c in series.cat.categories if not _is_unlabelled(c)]
    else:
        order = sorted({str(c) for c in series if not _is_unlabelled(c)}, key=_natural)
    missing = series.astype(object).map(_is_unlabelled).to_numpy(dtype=bool)
    names = np.where(missing, "unlabelled", series.astype(object).astype(str).to_numpy())
    present = set(names)
    return names, {name: c for name, c in category_colours([*order, "unlabelled"]).items() if name in present}


def _draw_image(ax, image: np.ndarray, scale: float, limits: tuple[float, ...], alpha: float) -> None:
    """Show the part of the image within the limits (x0, x1, y0, y1 in full-resolution pixels), thinned."""
    height, width = image.shape[:2]
    x0, x1 = (int(np.clip(v * scale, 0, width)) for v in limits[:2])
    y0, y1 = (int(np.clip(v * scale, 0, height)) for v in limits[2:])
    x1, y1 = min(width, x1 + 1), min(height, y1 + 1)
    if x1 - x0 < 2 or y1 - y0 < 2:  # the spots lie off the image; other checks say so
        return
    step = math.ceil(max(x1 - x0, y1 - y0) / MAX_IMAGE_SIDE)
    patch = np.asarray(image[y0:y1:step, x0:x1:step])
    end_x, end_y = x0 + patch.shape[1] * step, y0 + patch.shape[0] * step
    extent = (x0 / scale, end_x / scale, end_y / scale, y0 / scale)
    ax.imshow(patch, extent=extent, cmap="gray", interpolation="antialiased", alpha=alpha, zorder=0)


def _draw_points(ax, xy: np.ndarray, diameter: float, **style):
    """Draw one disc per point; rasterised dots of about that size where they are very many."""
    if len(xy) <= MAX_DISCS:
        from matplotlib.collections import EllipseCollection

        sizes = np.full(len(xy), diameter)
        discs = EllipseCollection(
            sizes, sizes, np.zeros(len(xy)), units="xy", offsets=xy, offset_transform=ax.transData,
            linewidths=0, zorder=2, **style,
        )  # fmt: skip
        return ax.add_collection(discs, autolim=False)
    left, right = sorted(ax.get_xlim())
    bottom, top = sorted(ax.get_ylim())
    box = ax.get_position()
    inches = ax.figure.get_size_inches()
    points_per_unit = 72 * min(box.width * inches[0] / (right - left), box.height * inches[1] / (top - bottom))
    size = max(0.4, (diameter * points_per_unit) ** 2)
    return ax.scatter(xy[:, 0], xy[:, 1], s=size, linewidths=0, rasterized=True, zorder=2, **style)


def category_legend(ax, colours: Mapping[str, str], *, title: str = "", max_rows: int = 14) -> None:
    """Put a legend of categories to the right of the axes, in as many columns as needed.

    Parameters
    ----------
    ax
        The axes.
    colours
        Category to colour, in the order to show.
    title
        Heading of the legend.
    max_rows
        Entries per column.
    """
    from matplotlib.lines import Line2D

    if not colours:
        return
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, markersize=6, label=name)
        for name, colour in colours.items()
    ]
    ax.legend(
        handles=handles, title=title, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8,
        title_fontsize=8, ncols=math.ceil(len(handles) / max_rows), handletextpad=0.2, columnspacing=0.8,
        borderaxespad=0.3,
    )  # fmt: skip


def tissue(
    ax,
    xy: np.ndarray,
    values,
    *,
    image: np.ndarray | None = None,
    image_scale: float = 1.0,
    mpp: float | None = None,
    spot_diameter_um: float | None = None,
    colours: Mapping[str, str] | None = None,
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    title: str = "",
    legend: bool = True,
    alpha: float = 0.9,
    size_fallback: bool = True,
):
    """Show one value per spot or cell where it lies on the tissue, on the image if there is one.

    Parameters
    ----------
    ax
        Axes to draw into; they are cut to the spots with a small margin, y pointing down.
    xy
        n x 2, x and y in full-resolution image pixels. Positions that are not finite are left out.
    values
        n numbers, or n category names (a pandas categorical keeps its order; other names are sorted, numbers
        among them by value). Missing values are light grey.
    image
        RGB or grey array at working resolution, height x width (x 3).
    image_scale
        Image pixels per full-resolution pixel.
    mpp
        Micrometres per full-resolution pixel, for the scale bar; None or NaN where unknown.
    spot_diameter_um
        Diameter of a spot in micrometres. Where it and `mpp` are known the spots are drawn to scale.
    colours
        Category to colour; without it `category_colours` over the categories in order, those of a pandas categorical
        that occur nowhere included: the same categories give the same colours in every section.
    cmap, vmin, vmax
        Colour map and its limits for numbers.
    title
        Title of the panel.
    legend
        Whether to add a legend (categories) or a colour bar (numbers).
    alpha
        Opacity of the spots; the image under them fades as it grows (0 shows the plain image).
    size_fallback
        Where the size of a spot is unknown: True for dots that fill 85 % of the spacing of the points,
        False for small dots (a third of it).

    Returns
    -------
    matplotlib.collections.Collection
        The spots as drawn (for numbers with their colour scale, so that a caller can share a colour bar).

    Raises
    ------
    ValueError
        `xy` is not n x 2, or `values` has another length.
    """
    xy = np.asarray(xy, dtype=float)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"positions are n x 2, not {xy.shape}")
    shown, scheme = _as_values(values, len(xy))
    keep = np.isfinite(xy).all(axis=1)
    xy, shown = xy[keep], shown[keep]
    mpp = float(mpp) if mpp is not None and np.isfinite(mpp) and mpp > 0 else None

    ax.set(xticks=[], yticks=[], title=title)
    ax.title.set_fontsize(10)
    ax.set_aspect("equal")
    for side in ax.spines.values():
        side.set_visible(False)
    if not len(xy):
        ax.text(0.5, 0.5, "no positions", ha="center", va="center", transform=ax.transAxes, color="grey")
        return None

    pitch = spacing(xy)
    known = mpp is not None and spot_diameter_um is not None and np.isfinite(spot_diameter_um) and spot_diameter_um > 0
    diameter = spot_diameter_um / mpp if known else pitch * (0.85 if size_fallback else 0.35)
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = max(diameter, 0.03 * float((high - low).max()), pitch / 2)
    limits = (low[0] - margin, high[0] + margin, low[1] - margin, high[1] + margin)
    if image is not None and np.isfinite(image_scale) and image_scale > 0:
        # Stain and colour map share hues: the image steps back as far as the spots come forward.
        _draw_image(ax, image, float(image_scale), limits, alpha=1 - 0.4 * alpha)
    ax.set_xlim(limits[0], limits[1])
    ax.set_ylim(limits[3], limits[2])  # image convention: y grows downwards

    if scheme is None:
        drawn = _draw_numbers(ax, xy, shown, diameter, cmap, vmin, vmax, alpha, legend)
    else:
        scheme |= {str(name): colour for name, colour in (colours or {}).items() if str(name) in scheme}
        drawn = _draw_points(ax, xy, diameter, facecolors=[scheme[name] for name in shown], alpha=alpha)
        if legend:
            category_legend(ax, scheme)
    if mpp is not None:
        scale_bar(ax, mpp)
    return drawn


def _draw_numbers(ax, xy, numbers, diameter, cmap, vmin, vmax, alpha, legend):
    """Draw numbers with a colour bar; what is missing lies below, in light grey."""
    there = np.isfinite(numbers)
    if not there.all():
        _draw_points(ax, xy[~there], diameter, facecolors=UNLABELLED, alpha=alpha)
    inside = numbers[there]
    low = vmin if vmin is not None else (inside.min() if len(inside) else 0.0)
    high = vmax if vmax is not None else (inside.max() if len(inside) else 1.0)
    if len(xy[there]) <= MAX_DISCS:
        drawn = _draw_points(ax, xy[there], diameter, array=inside, cmap=cmap, alpha=alpha)
    else:
        drawn = _draw_points(ax, xy[there], diameter, c=inside, cmap=cmap, alpha=alpha)
    drawn.set_clim(low, high if high > low else low + 1)
    if legend and len(inside):
        bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.6, pad=0.02, aspect=18)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, length=2)
    return drawn
