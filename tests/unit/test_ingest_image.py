"""The working image: every kind of source, its scale, its levels, its memory."""

import gzip
import math
import subprocess
import sys

import h5py
import ingest_cases as cases
import numpy as np
import pytest
import tifffile
from PIL import Image

from histoweft.errors import InputError
from histoweft.images import read_image
from histoweft.ingest import image as module
from histoweft.ingest import pixels
from histoweft.ingest.image import EmbeddedImage, image_mpp, image_size, parse, write_working_image


def smooth(height=600, width=900):
    """Return an RGB gradient, so that averages are known."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=2).astype(np.uint8)


def average(array, factor):
    h, w = array.shape[0] // factor, array.shape[1] // factor
    return array[: h * factor, : w * factor].reshape(h, factor, w, factor, 3).mean(axis=(1, 3))


def write_tiff(path, array, kind):
    options = {
        "tiled": {"tile": (128, 128), "compression": "zlib"},
        "strips": {"rowsperstrip": 37, "compression": "zlib"},
        "one_strip": {"rowsperstrip": array.shape[0]},
        "jpeg": {"tile": (256, 256), "compression": "jpeg", "compressionargs": {"level": 98}},
        "planar": {"planarconfig": "separate"},
    }[kind]
    data = array.transpose(2, 0, 1) if kind == "planar" else array
    tifffile.imwrite(path, data, photometric="rgb", metadata=None, **options)
    return path


@pytest.mark.parametrize("kind", ["tiled", "strips", "one_strip", "jpeg", "planar", "png", "jpg", "png.gz"])
def test_every_source_is_averaged_over_areas(tmp_path, kind):
    array = smooth()
    source = tmp_path / f"source.{kind if kind in ('png', 'jpg', 'png.gz') else 'tif'}"
    if kind == "png.gz":
        Image.fromarray(array).save(tmp_path / "plain.png")
        source.write_bytes(gzip.compress((tmp_path / "plain.png").read_bytes()))
    elif kind in ("png", "jpg"):
        Image.fromarray(array).save(source, quality=98) if kind == "jpg" else Image.fromarray(array).save(source)
    else:
        write_tiff(source, array, kind)
    assert image_size(source) == (900, 600)
    done = write_working_image(source, tmp_path / "out.tif", 0.5, 1.0, 1.5)
    assert (done.width, done.height) == (300, 200)
    assert done.um_per_px == pytest.approx(1.5)
    assert done.scale == pytest.approx(1 / 3)
    back, um_per_px, scale = read_image(tmp_path / "out.tif")
    assert (um_per_px, scale) == (pytest.approx(1.5), pytest.approx(1 / 3))
    stored = tifffile.imread(source) if kind == "jpeg" else array  # jpeg blurs the edges of padded tiles
    assert np.abs(back - average(stored, 3)).max() <= (4 if kind == "jpg" else 1)


def test_band_edges_leave_no_seam(tmp_path):
    """A non-integer factor over many bands gives what one pass over the whole image gives."""
    array = smooth(2500, 700)
    source = write_tiff(tmp_path / "a.tif", array, "tiled")
    done = write_working_image(source, tmp_path / "out.tif", 1.0, 1.0, 1.37)
    whole = Image.fromarray(array).resize((done.width, done.height), Image.Resampling.BOX)
    difference = np.abs(read_image(tmp_path / "out.tif")[0].astype(int) - np.asarray(whole))
    assert difference.max() <= 1


def test_never_enlarged(tmp_path):
    source = cases.picture(tmp_path / "a.png", 300, 200)
    done = write_working_image(source, tmp_path / "out.tif", 0.7, 0.045, 1.0)
    assert (done.width, done.height, done.levels) == (300, 200, 1)
    assert done.scale == pytest.approx(0.045)
    assert done.um_per_px == pytest.approx(0.7 / 0.045)
    np.testing.assert_array_equal(read_image(tmp_path / "out.tif")[0], np.asarray(Image.open(source)))


def test_unknown_pixel_size_keeps_the_image_and_max_px_shrinks_it(tmp_path):
    source = cases.picture(tmp_path / "a.png", 300, 200)
    done = write_working_image(source, tmp_path / "out.tif", math.nan, 1.0, 1.0)
    assert (done.width, math.isnan(done.um_per_px)) == (300, True)
    assert math.isnan(read_image(tmp_path / "out.tif")[1])
    small = write_working_image(source, tmp_path / "small.tif", math.nan, 1.0, 1.0, max_px=150)
    assert (small.width, small.height, small.scale) == (150, 100, 0.5)


def test_pyramid_levels_and_max_px(tmp_path):
    source = write_tiff(tmp_path / "a.tif", smooth(1200, 1800), "tiled")
    done = write_working_image(source, tmp_path / "out.tif", 0.5, 0.5, 1.0)
    assert done.levels == 3
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        assert [level.shape for level in tif.series[0].levels] == [(1200, 1800, 3), (600, 900, 3), (300, 450, 3)]
        page = tif.pages[0]
        assert (page.tilewidth, page.tilelength) == (512, 512)
        assert page.dtype == np.uint8
    for level, side in ((0, 1800), (1, 900), (2, 450)):
        array, um_per_px, scale = read_image(tmp_path / "out.tif", level)
        assert array.shape[1] == side
        assert um_per_px == pytest.approx(1800 / side)
        assert scale == pytest.approx(0.5 * side / 1800)
    array, um_per_px, scale = read_image(tmp_path / "out.tif", max_px=1000)
    assert (array.shape, scale) == ((600, 900, 3), pytest.approx(0.25))
    assert read_image(tmp_path / "out.tif", max_px=90)[0].shape == (60, 90, 3)
    assert image_mpp(tmp_path / "out.tif") == pytest.approx(1.0)


def test_large_working_images_go_through_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 1000)
    source = write_tiff(tmp_path / "a.tif", smooth(), "tiled")
    write_working_image(source, tmp_path / "o" / "out.tif", 0.5, 1.0, 1.0)
    assert np.abs(read_image(tmp_path / "o" / "out.tif")[0] - average(smooth(), 2)).max() <= 1
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["out.tif"]


def test_jpeg_compression_is_smaller(tmp_path):
    source = cases.picture(tmp_path / "a.png", 900, 900)
    write_working_image(source, tmp_path / "a.tif", 1.0, 1.0, 1.0)
    write_working_image(source, tmp_path / "b.tif", 1.0, 1.0, 1.0, compression="jpeg")
    assert (tmp_path / "b.tif").stat().st_size < 0.9 * (tmp_path / "a.tif").stat().st_size
    assert read_image(tmp_path / "b.tif")[0].shape == (900, 900, 3)


def test_transparency_becomes_white(tmp_path):
    array = np.zeros((50, 60, 4), np.uint8)
    array[:, 30:] = (200, 100, 50, 255)
    Image.fromarray(array).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("a.png", "a.tif"):
        write_working_image(tmp_path / name, tmp_path / "out.tif", 1.0, 1.0, 1.0)
        back = read_image(tmp_path / "out.tif")[0]
        assert back[0, 0].tolist() == [255, 255, 255]
        assert back[0, 59].tolist() == [200, 100, 50]


def test_grey_palette_and_cmyk(tmp_path):
    grey = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (40, 1))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    tifffile.imwrite(tmp_path / "grey.tif", grey)
    tifffile.imwrite(tmp_path / "white.tif", 255 - grey, photometric="miniswhite")
    for name in ("grey.png", "grey.tif", "white.tif"):
        write_working_image(tmp_path / name, tmp_path / "out.tif", 1.0, 1.0, 1.0)
        back = read_image(tmp_path / "out.tif")[0]
        np.testing.assert_array_equal(back, np.repeat(grey[..., None], 3, axis=2), err_msg=name)
    flat = Image.new("RGB", (40, 30), (255, 0, 0))
    flat.quantize(4).save(tmp_path / "palette.png")
    flat.convert("CMYK").save(tmp_path / "cmyk.jpg")
    for name in ("palette.png", "cmyk.jpg"):
        write_working_image(tmp_path / name, tmp_path / "out.tif", 1.0, 1.0, 1.0)
        pixel = read_image(tmp_path / "out.tif")[0][5, 5].astype(int)
        assert np.abs(pixel - [255, 0, 0]).max() <= 3, name


@pytest.mark.parametrize(("bits", "suffix"), [(12, "tif"), (16, "tif"), (16, "png")])
def test_deep_images_use_the_bits_they_have(tmp_path, bits, suffix):
    top = 2**bits - 1
    ramp = np.tile(np.linspace(0, top, 256).astype(np.uint16), (20, 1))
    if suffix == "tif":
        tifffile.imwrite(tmp_path / "a.tif", np.repeat(ramp[..., None], 3, axis=2), photometric="rgb")
    else:
        Image.fromarray(ramp).save(tmp_path / "a.png")
    write_working_image(tmp_path / f"a.{suffix}", tmp_path / "out.tif", 1.0, 1.0, 1.0)
    back = read_image(tmp_path / "out.tif")[0]
    assert np.abs(back[0, :, 1].astype(int) - np.arange(256)).max() <= 1


def test_ome_tiff_planes_levels_and_pixel_size(tmp_path):
    array = smooth(512, 768)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        facts = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm"}
        facts["Channel"] = {"Name": ["Red", "Green", "Blue"]}
        writer.write(array.transpose(2, 0, 1), subifds=1, tile=(128, 128), metadata=facts, photometric="minisblack")
        half = array[::2, ::2].transpose(2, 0, 1)
        writer.write(np.ascontiguousarray(half), subfiletype=1, tile=(128, 128), photometric="minisblack")
    source = tmp_path / "a.ome.tif"
    assert image_size(source) == (768, 512)
    assert image_mpp(source) == 0.25
    done = write_working_image(source, tmp_path / "out.tif", 0.25, 1.0, 0.5)
    assert (done.width, done.height) == (384, 256)
    np.testing.assert_array_equal(read_image(tmp_path / "out.tif")[0], array[::2, ::2])  # read from its own level


def test_multiplexed_images_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((7, 64, 64), np.uint8), metadata={"axes": "CYX"})
    with pytest.raises(InputError, match="C=7"):
        image_size(tmp_path / "a.ome.tif")


def test_aperio_pixel_size(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.svs", smooth(64, 64), description="Aperio Image|AppMag = 20|MPP = 0.4990", metadata=None
    )
    assert image_mpp(tmp_path / "a.svs") == 0.499
    tifffile.imwrite(tmp_path / "b.svs", smooth(64, 64), description="Aperio Image|MPP = 0,2520", metadata=None)
    assert image_mpp(tmp_path / "b.svs") == 0.252


def packed(content, flip=None, end=None):
    data = bytearray(gzip.compress(content, 0, mtime=0))
    if flip:
        data[flip] ^= 255
    return bytes(data[:end])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png.gz", packed(b"x" * 900, flip=-6), "damaged: its checksum does not fit"),
        ("a.png.gz", packed(b"x" * 900, flip=11), "damaged: its checksum does not fit"),
        ("a.png.gz", packed(b"x" * 900, end=-100), "cut short"),
        ("a.png.gz", b"x" * 900, "not gzipped"),
        ("a.png", packed(b"x" * 900), "gzip-compressed data under the name of an image.*Unpack it"),
        ("a.tif", b"%PDF-1.4", "a PDF under the name of an image.*as TIFF, PNG or JPEG"),
        ("a.tif", b"\x01\x02\x00\x03" * 99, "a format that is not known here"),
    ],
)
def test_what_is_no_image_is_called_by_what_it_is(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        image_size(tmp_path / name)


def test_size_limit_of_pictures_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "MAX_PIXELS", 10_000)
    source = cases.picture(tmp_path / "a.png", 200, 200)
    with pytest.raises(InputError, match=r"at most 10,000 pixels(.|\n)*tiled TIFF"):
        write_working_image(source, tmp_path / "out.tif", 1.0, 1.0, 1.0)
    assert not (tmp_path / "out.tif").exists()


def test_memory_does_not_grow_with_a_tiled_image(tmp_path):
    """12,000 x 9,000 RGB is 324 MB decoded; the writer needs a band and the small working image."""
    rng = np.random.default_rng(0)
    tile = np.repeat(np.repeat(rng.integers(0, 255, (64, 64, 3), np.uint8), 8, 0), 8, 1)

    def tiles():
        for _ in range(24 * 18):
            yield tile

    tifffile.imwrite(
        tmp_path / "big.tif",
        tiles(),
        shape=(9000, 12000, 3),
        dtype=np.uint8,
        tile=(512, 512),
        photometric="rgb",
        compression="jpeg",
        metadata=None,
    )
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]);"
        "import tifffile, PIL.Image, imagecodecs; from histoweft.ingest.image import write_working_image;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "done = write_working_image(sys.argv[2], sys.argv[3], 0.25, 1.0, 1.5);"
        "print(done.width, done.height, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    lib = str(next(p for p in sys.path if p.endswith("workflow/lib")))
    out = subprocess.run(
        [sys.executable, "-c", code, lib, str(tmp_path / "big.tif"), str(tmp_path / "out.tif")],
        capture_output=True,
        text=True,
        check=True,
    )
    width, height, kilobytes = map(int, out.stdout.split())
    assert (width, height) == (2000, 1500)
    assert kilobytes < 160_000


@pytest.mark.parametrize(
    "stored",
    [
        lambda rgb: rgb,
        lambda rgb: (rgb / 255).astype(np.float32),
        lambda rgb: rgb.astype(np.float64),
        lambda rgb: rgb.transpose(2, 0, 1),
        lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]),
    ],
)
def test_an_image_in_an_h5ad_is_read_from_it(tmp_path, stored):
    array = smooth(60, 90)
    with h5py.File(tmp_path / "a.h5ad", "w") as handle:
        handle["uns/spatial/lib1/images/hires"] = stored(array)
    source = EmbeddedImage(tmp_path / "a.h5ad", "uns/spatial/lib1/images/hires")
    assert parse(str(source)) == source
    assert parse(tmp_path / "a.png") == tmp_path / "a.png"
    assert image_size(source) == image_size(str(source)) == (90, 60)
    write_working_image(source, tmp_path / "out.tif", 1.0, 1.0, 1.0)
    assert np.abs(read_image(tmp_path / "out.tif")[0].astype(int) - array).max() <= 1


def test_an_array_that_is_no_image_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5ad", "w") as handle:
        handle["uns/spatial/lib1/images/hires"] = np.zeros((60, 90, 7), np.uint8)
    with pytest.raises(InputError, match=r"images/hires: found an array of 60 x 90 x 7 uint8"):
        image_size(f"{tmp_path}/a.h5ad::uns/spatial/lib1/images/hires")
    with pytest.raises(InputError, match=r"images/low: found no array of that name"):
        image_size(f"{tmp_path}/a.h5ad::uns/spatial/lib1/images/low")
