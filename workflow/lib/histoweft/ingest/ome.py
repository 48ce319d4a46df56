"""What OME-XML, ImageJ and other descriptions inside a TIFF say of its planes, channels and pixel size."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from xml.etree import ElementTree

MICROMETRES = {
    "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4, "nm": 1e-3, "µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "micrometre": 1.0, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6, "km": 1e9, "thou": 25.4,
    "mil": 25.4, "li": 25400 / 12, "in": 25400.0, "inch": 25400.0, "ft": 304800.0, "yd": 914400.0,
    "pt": 25400 / 72,
}  # fmt: skip
"""Units of length; any other (``pixel``, ``reference frame``) leaves the pixel size unknown."""

BRIGHTFIELD = re.compile(
    r"bright|transmi|^bf$|^tl\b|h\s*&\s*e|^h\s*e$|haematox|hematox|eosin|gr[ae]y|^l$|mono|luminance|intensity|rgb|^he\b",
    re.I,
)
UNNAMED = re.compile(r"^(?:channel|ch|c|image|series|plane|untitled|default|slice|\W)*[\s:_#-]*[\d:\s]*$", re.I)
RED_GREEN_BLUE = tuple(re.compile(rf"^(?:channel\W*)?(?:{word[0]}|{word})$", re.I) for word in ("red", "green", "blue"))


@dataclass(frozen=True)
class Channel:
    """One channel: its name, samples a pixel, and whether it says that it holds emitted light."""

    name: str = ""
    samples: int = 1
    emits: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.name or "without a name", self.emits and f"({self.emits})") if part)


@dataclass(frozen=True)
class Said:
    """What a TIFF's description says.

    Parameters
    ----------
    sizes
        Size along Z, T and other axes but X, Y and C.
    channels
        In order; empty where nothing is said.
    mpp_x, mpp_y
        Micrometres per pixel; NaN unknown.
    unit
        The unit of length as written, where it is none that is known.
    files
        Names of the files that the image is spread over; empty for one.
    companion
        The file that holds the metadata, where this one only says so.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    channels: tuple[Channel, ...] = ()
    mpp_x: float = math.nan
    mpp_y: float = math.nan
    unit: str = ""
    files: tuple[str, ...] = ()
    companion: str = ""

    @property
    def named(self) -> list[str]:
        """Channels that are more than a number: their names and what else is known of them."""
        return [str(c) for c in self.channels if c.emits or not UNNAMED.match(c.name)]

    @property
    def is_rgb(self) -> bool:
        """Whether the channels are said to be the red, green and blue of one picture."""
        if len(self.channels) == 1:
            return self.channels[0].samples in (3, 4)
        names = [c.name.strip() for c in self.channels[:3]]
        return (
            len(self.channels) == 3
            and not any(c.emits for c in self.channels)
            and all(pattern.match(name) for pattern, name in zip(RED_GREEN_BLUE, names))
        )

    @property
    def stain(self) -> str:
        """What a single grey plane is called, where that is no word for transmitted light."""
        told = [c for c in self.channels if c.emits or not (UNNAMED.match(c.name) or BRIGHTFIELD.search(c.name))]
        return ", ".join(map(str, told))


def micrometres(unit: str) -> float:
    """Return how many micrometres a unit of length has; NaN for what is none."""
    text = unit.strip().replace("\\u00b5", "µ").replace("\\u00B5", "µ").replace("μ", "µ")
    return MICROMETRES.get(text, MICROMETRES.get(text.lower().replace("å", "å"), math.nan))


def is_ome(description: str) -> bool:
    """Return whether a description is OME-XML."""
    return bool(re.search(r"<(?:\w+:)?OME[\s>]", description[:4000]))


def read_ome(description: str) -> Said | None:
    """Return what OME-XML says of its first image; None where it is no XML that can be read."""
    try:
        root = ElementTree.fromstring(description.strip().strip("\0"))
    except ElementTree.ParseError:
        return None
    for element in root:
        if _tag(element) == "BinaryOnly":
            return Said(companion=element.get("MetadataFile", "") or "another file")
    pixels = next((p for image in root if _tag(image) == "Image" for p in image if _tag(p) == "Pixels"), None)
    if pixels is None:
        return None
    channels = tuple(_channel(c) for c in pixels if _tag(c) == "Channel")
    missing = _number(pixels.get("SizeC"), 1) - sum(c.samples for c in channels)
    channels += tuple(Channel() for _ in range(min(missing, 1000)))
    x, x_unit = _length(pixels, "X")
    y, y_unit = _length(pixels, "Y")
    return Said(
        sizes={axis: n for axis in "ZT" if (n := _number(pixels.get(f"Size{axis}"), 1)) > 1},
        channels=channels,
        mpp_x=x,
        mpp_y=y,
        unit=x_unit or y_unit,
        files=_files(root, pixels),
    )


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rsplit("}", 1)[-1]


def _number(text: str | None, default: int) -> int:
    try:
        return max(1, int(float(text))) if text is not None else default
    except ValueError:
        return default


def _channel(element: ElementTree.Element) -> Channel:
    told = []
    if fluor := element.get("Fluor"):
        told.append(fluor)
    for word in ("Excitation", "Emission"):
        if length := element.get(f"{word}Wavelength"):
            told.append(f"{word.lower()} {length} {element.get(f'{word}WavelengthUnit', 'nm')}")
    if "fluor" in (element.get("ContrastMethod", "") + element.get("AcquisitionMode", "")).lower():
        told.append("fluorescence")
    elif element.get("IlluminationType", "").lower() == "epifluorescence":
        told.append("epifluorescence")
    return Channel(element.get("Name", "").strip(), _number(element.get("SamplesPerPixel"), 1), ", ".join(told))


def _length(pixels: ElementTree.Element, axis: str) -> tuple[float, str]:
    """Return micrometres per pixel along an axis, and the unit where it is no length."""
    text, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return math.nan, ""
    factor = micrometres(unit)
    if not (math.isfinite(value) and value > 0):
        return math.nan, ""
    return value * factor, "" if math.isfinite(factor) else unit


def _files(root: ElementTree.Element, pixels: ElementTree.Element) -> tuple[str, ...]:
    """Return the files that the planes lie in, by their identifiers: a renamed file is still one."""
    found: dict[str, str] = {}
    for data in pixels:
        if _tag(data) != "TiffData":
            continue
        for uuid in data:
            if _tag(uuid) == "UUID":
                name = uuid.get("FileName", "")
                found.setdefault((uuid.text or "").strip() or name, name or (uuid.text or "").strip())
    return tuple(found.values()) if len(found) > 1 else ()


def read_imagej(metadata: dict, resolution: tuple[float, float]) -> Said:
    """Return what ImageJ says; `resolution` is pixels per unit along x and y, NaN unknown."""
    labels = metadata.get("Labels") or []
    n = int(metadata.get("channels", 1) or 1)
    names = [str(label) for label in labels[:n]] if len(labels) >= n else [""] * n
    unit = str(metadata.get("unit", "") or "")
    factor = micrometres(unit) if unit else math.nan
    x, y = (factor / r if math.isfinite(r) and r > 0 else math.nan for r in resolution)
    return Said(
        sizes={axis: n for axis, word in (("Z", "slices"), ("T", "frames")) if (n := int(metadata.get(word) or 1)) > 1},
        channels=tuple(Channel(name) for name in names),
        mpp_x=x,
        mpp_y=y,
        unit=unit if unit and math.isnan(factor) else "",
    )
