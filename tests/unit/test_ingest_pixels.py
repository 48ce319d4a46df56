"""What a pixel's numbers mean: every photometric interpretation, codec and layout shows the same true colours."""

import gzip

import numpy as np
import pytest
import tifffile
from PIL import Image

from histoweft.errors import InputError
from histoweft.images import read_image
from histoweft.ingest import pixels
from histoweft.ingest.image import image_mpp, image_size, orientation, turned, write_working_image

PURPLE, PINK, WHITE = (120, 60, 150), (230, 150, 190), (250, 248, 249)
BITS = {np.uint8: 8, np.uint16: 16}


def truth(height=96, width=160):
    """Return large patches of an H&E's colours, and of none of its own."""
    array = np.empty((height, width, 3), np.uint8)
    for number, colour in enumerate([PURPLE, PINK, WHITE, (200, 120, 180), (20, 90, 40)]):
        array[:, number * 32 : number * 32 + 32] = colour
    array[height // 2 :] = array[height // 2 :, ::-1]
    return array


def shown(path, **options):
    """Return the working image of a file at its own resolution."""
    out = path.with_name("out.tif")
    write_working_image(path, out, 1.0, 1.0, 1.0, **options)
    return read_image(out)[0]


def assert_true(path, tolerance, expected=None):
    array = shown(path)
    expected = truth() if expected is None else expected
    assert array.shape == expected.shape
    inner = np.zeros(expected.shape[:2], bool)  # edges of patches ring in lossy codecs
    for left in range(8, expected.shape[1], 32):
        inner[8:40, left : left + 16] = inner[56:88, left : left + 16] = True
    assert np.abs(array.astype(int) - expected)[inner].max() <= tolerance


def rename(path, **tags):
    """Say something else of the numbers in a TIFF."""
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for name, value in tags.items():
            tif.pages[0].tags[name].overwrite(value)


def rgb_to_ycbcr(rgb):
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return np.clip(np.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], -1) + 0.5, 0, 255).astype(np.uint8)


def rgb_to_lab(rgb):
    """Return L, and a and b with their signs, under D50, by Pillow's colour management."""
    from PIL import ImageCms

    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    return np.asarray(ImageCms.applyTransform(Image.fromarray(rgb), transform))


def separated(rgb):
    """Return the inks with all the black there can be."""
    light = rgb.astype(float) / 255
    white = np.maximum(light.max(axis=-1, keepdims=True), 1e-9)
    return np.concatenate([255 * (1 - light / white), 255 * (1 - white)], axis=-1).round().astype(np.uint8)


ENCODED = {
    "rgb": lambda rgb: (rgb, 2),
    "cmyk": lambda rgb: (separated(rgb), 5),
    "ycbcr": lambda rgb: (rgb_to_ycbcr(rgb), 6),
    "cielab": lambda rgb: (rgb_to_lab(rgb), 8),
    "icclab": lambda rgb: (rgb_to_lab(rgb) ^ np.array([0, 128, 128], np.uint8), 9),
}


def write(path, samples, photometric, planar=False, **options):
    data = np.ascontiguousarray(samples.transpose(2, 0, 1)) if planar else samples
    plain = "separated" if samples.shape[2] == 4 else "rgb"
    layout = "separate" if planar else "contig"
    tifffile.imwrite(path, data, photometric=plain, planarconfig=layout, metadata=None, **options)
    rename(path, PhotometricInterpretation=photometric)
    return path


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("codec", [None, "lzw", "zlib", "zstd", "packbits"])
@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 17}, {"tile": (32, 48)}])
def test_colours_in_every_codec_and_layout(tmp_path, kind, codec, planar, layout):
    samples, photometric = ENCODED[kind](truth())
    path = write(tmp_path / "a.tif", samples, photometric, planar, compression=codec, **layout)
    assert_true(path, 0 if kind == "rgb" else 4)


@pytest.mark.parametrize("kind", ["rgb", "cmyk", "ycbcr"])
def test_sixteen_bits(tmp_path, kind):
    samples, photometric = ENCODED[kind](truth())
    assert_true(write(tmp_path / "a.tif", samples.astype(np.uint16) * 257, photometric), 4)


@pytest.mark.parametrize("photometric", [8, 9])
def test_lab_of_sixteen_bits(tmp_path, photometric):
    lab = rgb_to_lab(truth()).astype(np.uint16)
    deep = np.stack([lab[..., 0] * (257 if photometric == 8 else 256), lab[..., 1] << 8, lab[..., 2] << 8], -1)
    deep = deep ^ np.array([0, 0x8000, 0x8000] if photometric == 9 else [0, 0, 0], np.uint16)
    assert_true(write(tmp_path / "a.tif", deep, photometric), 4)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2), None])
def test_jpeg_in_a_tiff_is_converted_once(tmp_path, subsampling):
    """Stored as YCbCr, subsampled or not, or (None) as red, green and blue."""
    options = {"subsampling": subsampling, "compressionargs": {"level": 98}}
    if subsampling is None:
        options = {"compressionargs": {"level": 98, "outcolorspace": "rgb"}}
    tifffile.imwrite(tmp_path / "a.tif", truth(), photometric="rgb", tile=(48, 64), compression="jpeg", **options)
    assert_true(tmp_path / "a.tif", 6)


@pytest.mark.parametrize("codec", ["jpeg2000", "webp", "jpegxl"])
def test_codecs_of_pictures(tmp_path, codec):
    level = {"webp": {"level": 101}, "jpegxl": {"lossless": True}}.get(codec, {})
    tifffile.imwrite(tmp_path / "a.tif", truth(), photometric="rgb", compression=codec, compressionargs=level)
    assert_true(tmp_path / "a.tif", 2)


def test_jpeg_of_inks(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", separated(truth()), photometric="separated", compression="jpeg",
                     compressionargs={"level": 98})  # fmt: skip
    assert_true(tmp_path / "a.tif", 8)
    Image.fromarray(separated(truth()), "CMYK").save(tmp_path / "a.jpg", quality=98)  # Adobe's inverted codes
    assert_true(tmp_path / "a.jpg", 8)


@pytest.mark.parametrize("shared", [(2, 2), (2, 1), (4, 1), (4, 2), (1, 2)])
@pytest.mark.parametrize("codec", [1, 5, 8])
@pytest.mark.parametrize("tiled", [False, True])
def test_subsampled_colours_in_codecs_that_know_nothing_of_them(tmp_path, shared, codec, tiled):
    import imagecodecs

    across, down = shared
    codes = rgb_to_ycbcr(truth())
    rows, wide = (32, 48) if tiled else (36, codes.shape[1])
    pieces = []
    for top in range(0, codes.shape[0], rows):
        for left in range(0, codes.shape[1], wide):
            piece = codes[top : top + rows, left : left + wide]
            high = rows if tiled else piece.shape[0]
            pad = ((0, -(-high // down) * down - piece.shape[0]), (0, -(-wide // across) * across - piece.shape[1]))
            piece = np.pad(piece, (*pad, (0, 0)), mode="edge")
            blocks = piece.reshape(piece.shape[0] // down, down, piece.shape[1] // across, across, 3)
            blocks = blocks.transpose(0, 2, 1, 3, 4).reshape(blocks.shape[0], blocks.shape[2], -1, 3)
            colour = blocks[..., 1:].mean(axis=2).round().astype(np.uint8)
            data = np.concatenate([blocks[..., 0], colour], axis=2).tobytes()
            pieces.append({1: bytes, 5: imagecodecs.lzw_encode, 8: imagecodecs.zlib_encode}[codec](data))
    tags = {256: codes.shape[1], 257: codes.shape[0], 258: (8, 8, 8), 259: codec, 262: 6, 277: 3, 530: shared}
    tags |= {322: wide, 323: rows} if tiled else {278: rows}
    (tmp_path / "a.tif").write_bytes(raw_tiff(tags, pieces, (324, 325) if tiled else (273, 279)))
    assert_true(tmp_path / "a.tif", 4)


def raw_tiff(tags, pieces, names):
    """Return a classic TIFF of one page from its tags (all short or long) and its strips or tiles."""
    import struct

    body, places = bytearray(b"II*\0\0\0\0\0"), []
    for piece in pieces:
        places.append(len(body))
        body += piece
    entries = {**tags, names[0]: tuple(places), names[1]: tuple(map(len, pieces))}
    encoded = []
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, tuple) else (value,)
        kind = 4 if tag in names else 3
        data = struct.pack(f"<{len(values)}{'I' if kind == 4 else 'H'}", *values)
        if len(data) > 4:
            body += b"\0" * (len(body) % 2)
            data, place = struct.pack("<I", len(body)), data
            body += place
        encoded.append(struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0"))
    body += b"\0" * (len(body) % 2)
    body[4:8] = struct.pack("<I", len(body))
    return bytes(body + struct.pack("<H", len(encoded)) + b"".join(encoded) + b"\0\0\0\0")


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_fourth_sample_is_opacity_only_where_the_file_says_so(tmp_path, kind):
    rgb = truth()
    fourth = np.zeros(rgb.shape[:2], np.uint8)
    fourth[:, 80:] = 128
    stored = rgb.astype(float)
    if kind == 1:  # multiplied already
        stored = stored * fourth[..., None] / 255
    samples = np.dstack([stored.round().astype(np.uint8), fourth])
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=[kind])
    on_white = rgb * (fourth[..., None] / 255) + 255 - fourth[..., None].astype(float)
    assert_true(tmp_path / "a.tif", 2, rgb if kind == 0 else on_white)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("white", [False, True])
def test_grey_of_few_bits(tmp_path, bits, white):
    top = 2**bits - 1
    levels = np.tile(np.arange(64) * top // 63, (16, 1)).astype(np.uint8)
    stored = top - levels if white else levels
    packed = np.packbits(np.unpackbits(stored[..., None], axis=2)[..., 8 - bits :].reshape(16, -1), axis=1)
    tags = {256: 64, 257: 16, 258: bits, 259: 1, 262: 0 if white else 1, 277: 1, 278: 16}
    (tmp_path / "a.tif").write_bytes(raw_tiff(tags, [packed.tobytes()], (273, 279)))
    expected = np.repeat(np.round(levels * 255.0 / top)[..., None], 3, axis=2)
    assert np.abs(shown(tmp_path / "a.tif") - expected).max() <= 1


@pytest.mark.parametrize("index", [np.uint8, np.uint16])
@pytest.mark.parametrize("deep", [True, False])
def test_palettes(tmp_path, index, deep):
    rgb = truth()
    colours, number = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
    colormap = np.zeros((3, 2 ** BITS[index]), np.uint16)
    colormap[:, : len(colours)] = colours.T.astype(np.uint16) * (257 if deep else 1)
    tifffile.imwrite(tmp_path / "a.tif", number.reshape(rgb.shape[:2]).astype(index), photometric="palette",
                     colormap=colormap)  # fmt: skip
    assert_true(tmp_path / "a.tif", 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "transparent palette"])
def test_modes_of_png(tmp_path, mode):
    grey = np.repeat(np.where(truth()[..., :1] > 150, 255, 0), 3, axis=2).astype(np.uint8)
    image, expected = Image.fromarray(grey), grey
    if mode in ("P", "RGBA"):
        image, expected = Image.fromarray(truth()), truth()
        image = image.quantize(16) if mode == "P" else image.convert("RGBA")
    elif mode == "I;16":
        image = Image.fromarray(grey[..., 0].astype(np.uint16) * 257)
    elif mode == "transparent palette":
        image = Image.fromarray(np.where(grey[..., 0] > 0, 1, 0).astype(np.uint8), "P")
        image.putpalette([10, 20, 30, 90, 80, 70])
        expected = np.where(grey > 0, np.array([90, 80, 70]), 255)
    else:
        image = image.convert("L").convert(mode)
    image.save(tmp_path / "a.png", **({"transparency": b"\x00\xff"} if mode == "transparent palette" else {}))
    assert_true(tmp_path / "a.png", 2, expected)


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_fractions(tmp_path, top):
    values = (truth() / 255 * top).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    assert_true(tmp_path / "a.tif", 1)


def test_the_bytes_of_a_file_decide_not_its_name(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", separated(truth()), photometric="separated")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.tif").read_bytes())
    (tmp_path / "b.tif.gz").write_bytes(gzip.compress((tmp_path / "a.tif").read_bytes()))
    Image.fromarray(truth()).save(tmp_path / "c.png")
    (tmp_path / "c.png").rename(tmp_path / "c.tif")
    for name in ("a.png", "b.tif.gz", "c.tif"):
        assert_true(tmp_path / name, 2)


def test_unusual_inks_and_interpretations_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", separated(truth()), 5, extratags=[(332, 3, 1, 2, True)])
    with pytest.raises(InputError, match="inks that are not cyan, magenta, yellow and black"):
        image_size(path)
    path = write(tmp_path / "b.tif", truth(), 32845)
    with pytest.raises(InputError, match="photometric interpretation LOGLUV; expected RGB, grey"):
        image_size(path)


# ------------------------------------------------------------------------------------------ planes and channels


def grey_planes(n, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, 3000, (n, 64, 48)).astype(dtype)


@pytest.mark.parametrize("n", [2, 3, 4, 7])
@pytest.mark.parametrize("planar", [False, True])
def test_channels_are_refused_by_their_names(tmp_path, n, planar):
    names = ["DAPI", "ATP1A1", "18S", "AlphaSMA", "CD3", "CD8", "CD20"][:n]
    options = {"planarconfig": "separate"} if planar else {}
    tifffile.imwrite(tmp_path / "a.ome.tif", grey_planes(n), photometric="minisblack",
                     metadata={"axes": "CYX", "Channel": {"Name": names}}, **options)  # fmt: skip
    told = "DAPI" if planar else ", ".join(names)  # tifffile takes planes of one page for one channel
    with pytest.raises(InputError, match=rf"{n} channels .*: {told}; .*Fluorescence is no H&E"):
        image_size(tmp_path / "a.ome.tif")


def test_channels_without_names_are_no_colours(tmp_path):
    for name, options in {
        "ome.tif": {"metadata": {"axes": "CYX"}},
        "ij.tif": {"imagej": True, "metadata": {"axes": "CYX"}},
        "plain.tif": {"metadata": None},
    }.items():
        tifffile.imwrite(tmp_path / name, grey_planes(3), photometric="minisblack", **options)
        with pytest.raises(InputError, match=r"3 (channels|planes)|a stack of planes"):
            image_size(tmp_path / name)


def test_samples_of_grey_are_no_colours(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", truth(), photometric="minisblack", planarconfig="contig", metadata=None)
    with pytest.raises(InputError, match=r"3 channels \(3 samples a pixel\)"):
        image_size(tmp_path / "a.tif")


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "ZCYX"])
def test_stacks_are_refused_with_their_sizes(tmp_path, axes):
    shape = {"Z": 5, "T": 6, "C": 3, "Y": 64, "X": 48}
    data = np.zeros([shape[a] for a in axes], np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, photometric="minisblack", metadata={"axes": axes})
    with pytest.raises(InputError, match=f"stack of planes .*{axes[0]}={shape[axes[0]]}"):
        image_size(tmp_path / "a.ome.tif")


@pytest.mark.parametrize(("name", "refused"), [("DAPI", True), ("Hoechst", True), ("Brightfield", False), ("", False),
                                               ("Channel 0", False)])  # fmt: skip
def test_one_grey_channel_is_judged_by_its_name(tmp_path, name, refused):
    tifffile.imwrite(tmp_path / "a.ome.tif", grey_planes(1)[0], photometric="minisblack",
                     metadata={"axes": "YX", "Channel": {"Name": [name]}})  # fmt: skip
    if refused:
        with pytest.raises(InputError, match=f"one grey channel: {name}; .*Fluorescence is no H&E"):
            image_size(tmp_path / "a.ome.tif")
    else:
        assert image_size(tmp_path / "a.ome.tif") == (48, 64)


def test_excitation_makes_a_channel_fluorescent(tmp_path):
    channel = {"Name": ["Channel 1"], "ExcitationWavelength": [405.0], "Fluor": ["DAPI"]}
    tifffile.imwrite(tmp_path / "a.ome.tif", grey_planes(1)[0], photometric="minisblack",
                     metadata={"axes": "YX", "Channel": channel})  # fmt: skip
    with pytest.raises(InputError, match=r"one grey channel: Channel 1 \(DAPI, excitation 405"):
        image_size(tmp_path / "a.ome.tif")


def test_planes_called_red_green_and_blue_are_colours(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", truth().transpose(2, 0, 1), photometric="minisblack",
                     metadata={"axes": "CYX", "Channel": {"Name": ["Red", "Green", "Blue"]}})  # fmt: skip
    assert_true(tmp_path / "a.ome.tif", 0)
    tifffile.imwrite(tmp_path / "b.ome.tif", truth().transpose(2, 0, 1), photometric="rgb",
                     planarconfig="separate", metadata={"axes": "CYX"})  # fmt: skip
    assert_true(tmp_path / "b.ome.tif", 0)


def ome_set(folder, names, files, own):
    """Write one file of an OME set, as Xenium does."""
    uuid = {name: f"urn:uuid:00000000-0000-0000-0000-{i:012d}" for i, name in enumerate(files)}
    channels = "".join(f'<Channel ID="Channel:{i}" Name="{n}" SamplesPerPixel="1"/>' for i, n in enumerate(names))
    data = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="{n}">{uuid[n]}</UUID></TiffData>'
        for i, n in enumerate(files)
    )
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{uuid[own]}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="48" '
        f'SizeY="64" SizeZ="1" SizeC="{len(names)}" SizeT="1">{channels}{data}</Pixels></Image></OME>'
    )
    tifffile.imwrite(folder / own, grey_planes(1)[0], photometric="minisblack", metadata=None, description=text)
    return folder / own


@pytest.mark.parametrize("missing", [False, True])
def test_one_file_of_a_set_is_told_as_such(tmp_path, missing):
    files = [f"morphology_focus_000{i}.ome.tif" for i in range(4)]
    names = ["DAPI", "ATP1A1", "18S", "AlphaSMA"]
    for own in files[: 1 if missing else 4]:
        path = ome_set(tmp_path, names, files, own)
    with pytest.raises(InputError, match="one of 4 files that are one fluorescence image together with the channels "
                                         "DAPI, ATP1A1, 18S, AlphaSMA"):  # fmt: skip
        image_size(path)


def test_a_renamed_file_is_no_set(tmp_path):
    path = ome_set(tmp_path, ["Brightfield"], ["old.ome.tif"], "old.ome.tif").rename(tmp_path / "new.ome.tif")
    assert image_size(path) == (48, 64)


def test_metadata_in_another_file(tmp_path):
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><BinaryOnly MetadataFile="all.companion.ome" '
        'UUID="urn:uuid:1"/></OME>'
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", grey_planes(1)[0], metadata=None, description=text)
    with pytest.raises(InputError, match=r"whose channels are described in all\.companion\.ome"):
        image_size(tmp_path / "a.ome.tif")


# ----------------------------------------------------------------------------------------------------- pixel size


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [
        (500000, "pm", 0.5), (5000, "Å", 0.5), (500, "nm", 0.5), (0.5, "µm", 0.5), (0.5, "μm", 0.5),
        (0.5e-3, "mm", 0.5), (0.5e-4, "cm", 0.5), (0.5e-6, "m", 0.5),
        (0.02, "thou", 0.508), (2e-5, "in", 0.508), (1e-6, "ft", 0.3048),
        (0.002, "pt", 0.70556), (1, "pixel", None), (1, "reference frame", None),
    ],
)  # fmt: skip
def test_units_of_ome(tmp_path, size, unit, expected):
    facts = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size}
    tifffile.imwrite(tmp_path / "a.ome.tif", truth(), photometric="rgb",
                     metadata=facts | {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit})  # fmt: skip
    found = image_mpp(tmp_path / "a.ome.tif")
    assert np.isnan(found) if expected is None else found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (50800, 50800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (72, 72), "resolutionunit": "NONE"}, None),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "micron"}}, 0.5),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "\\u00B5m"}}, 0.5),
        ({"imagej": True, "resolution": (2000, 2000), "metadata": {"unit": "mm"}}, 0.5),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "pixel"}}, None),
        ({"imagej": True, "resolution": (72, 72), "metadata": {"unit": "inch"}}, None),
    ],
)
def test_pixel_sizes_of_other_writers(tmp_path, options, expected):
    tifffile.imwrite(tmp_path / "a.tif", truth(), photometric="rgb", **options)
    found = image_mpp(tmp_path / "a.tif")
    assert np.isnan(found) if expected is None else found == pytest.approx(expected)


def test_pixels_that_are_not_square_are_a_fault(tmp_path):
    facts = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    tifffile.imwrite(tmp_path / "a.ome.tif", truth(), photometric="rgb", metadata=facts)
    with pytest.raises(InputError, match=r"pixels of 0.5 x 0.25 um"):
        image_mpp(tmp_path / "a.ome.tif")


# ---------------------------------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("kind", ["tif", "jpg", "png"])
def test_the_picture_is_turned_as_a_viewer_turns_it(tmp_path, tag, kind):
    from PIL import ImageOps

    path, rgb = tmp_path / f"a.{kind}", truth()
    if kind == "tif":
        tifffile.imwrite(path, rgb, photometric="rgb", metadata=None, extratags=[(274, 3, 1, tag, True)])
        seen = turned(rgb, tag)
    else:
        image = Image.fromarray(rgb)
        image.getexif()[274] = tag
        image.save(path, exif=image.getexif(), **({"quality": 98, "subsampling": 0} if kind == "jpg" else {}))
    with Image.open(path) as image:
        seen = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert orientation(path) == tag
    array = shown(path)
    assert array.shape == seen.shape
    assert image_size(path) == (seen.shape[1], seen.shape[0])
    assert np.abs(array.astype(int) - seen).max() <= (4 if kind == "jpg" else 0)
    unturned = shown(path, orientation=1)
    assert np.abs(unturned.astype(int) - rgb).max() <= (12 if kind == "jpg" else 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    ],
)
def test_files_that_are_no_image_are_told_by_their_bytes(tmp_path, content, words):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=words):
        image_size(tmp_path / "a.jpg")


def test_a_jpg_that_is_cut_short(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:9000])
    with pytest.raises(InputError, match=r"unreadable image \(cut short\)"):
        shown(tmp_path / "a.jpg")


def test_colours_are_converted_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "AT_ONCE", 500)
    samples, photometric = ENCODED["cmyk"](truth())
    assert_true(write(tmp_path / "a.tif", samples, photometric, compression="zlib"), 4)


def test_several_pictures_in_one_file(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for name in ("left", "right"):
            writer.write(truth(), photometric="rgb", metadata={"axes": "YXS", "Name": name})
        writer.write(truth()[:20, :20], photometric="rgb", metadata={"axes": "YXS", "Name": "label"})
    with pytest.raises(InputError, match=r"2 pictures in one file: left .*, right "):
        image_size(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["zlib", "jpeg", None, "ome"])
def test_a_damaged_tiff_is_told_or_read(tmp_path, kind, seed):
    """No byte of a header that is changed gives an error that is not told in words."""
    options = {"metadata": {"axes": "YXS"}} if kind == "ome" else {"compression": kind, "metadata": None}
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    tifffile.imwrite(path, truth(), photometric="rgb", **options)
    whole, rng = path.read_bytes(), np.random.default_rng(seed)
    for _ in range(12):
        damaged = bytearray(whole)
        for place in rng.integers(4, min(600, len(whole)), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            image_size(path), image_mpp(path), orientation(path)
            shown(path)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", ["grey", "rgb", "cmyk"])
def test_opacity_beside_every_kind_of_colour(tmp_path, kind, planar):
    rgb = truth() if kind != "grey" else np.repeat(truth()[..., :1], 3, axis=2)
    colours = {"grey": rgb[..., :1], "rgb": rgb, "cmyk": separated(rgb)}[kind]
    opacity = np.full(rgb.shape[:2], 255, np.uint8)
    opacity[:, :64] = 51
    samples = np.dstack([colours, opacity])
    data = np.ascontiguousarray(samples.transpose(2, 0, 1)) if planar else samples
    photometric = {"grey": "minisblack", "rgb": "rgb", "cmyk": "separated"}[kind]
    layout = "separate" if planar else "contig"
    tifffile.imwrite(tmp_path / "a.tif", data, photometric=photometric, planarconfig=layout, extrasamples=[2],
                     metadata=None, byteorder=">", compression="lzw")  # fmt: skip
    assert_true(tmp_path / "a.tif", 3, np.where(opacity[..., None] == 255, rgb, rgb * 0.2 + 255 * 0.8))


def test_a_sample_that_is_not_said_to_be_anything(tmp_path):
    """Writers that leave ExtraSamples out altogether say no more than those that write 0."""
    rgb = truth()
    rows, width = rgb.shape[:2]
    data = np.dstack([rgb, np.zeros((rows, width), np.uint8)]).tobytes()
    tags = {256: width, 257: rows, 258: (8, 8, 8, 8), 259: 1, 262: 2, 277: 4, 278: rows}
    (tmp_path / "a.tif").write_bytes(raw_tiff(tags, [data], (273, 279)))
    assert_true(tmp_path / "a.tif", 0)
