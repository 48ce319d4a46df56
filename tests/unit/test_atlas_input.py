"""Reading an atlas: every form gives the same voxels, and every fault names what to change."""

import gzip
import hashlib
import io
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from servers import serving

from histoweft.atlas import experiments, sources, tables, volumes, voxels
from histoweft.atlas.prepare import dim_and_outer, middle, mirror_images, prepare
from histoweft.atlas.sources import Options
from histoweft.errors import InputError
from histoweft.simulate import write as simulated

SHAPE = (6, 5, 8)
N_GENES = 7
NAMES = np.array(["NA", "Nrp1", "Pdyn", "Prox1", "g5", "g6", "g7"])
STRUCTURES = "id,acronym,name,parent_structure_id,color_hex_triplet\n0,void,void,,\n1,ORG,organ,,FF0000\n"
STRUCTURES += "2,A,part a,1,00FF00\n3,B,part b,1,0000FF\n"


@pytest.fixture
def grid():
    """Return energies (z, y, x, genes) with -1 at some places, and an annotation of two structures."""
    rng = np.random.default_rng(0)
    energy = rng.gamma(2.0, 1.0, (*SHAPE, N_GENES)).astype(np.float32)
    annotation = np.zeros(SHAPE, np.int32)
    annotation[1:5, 1:4, 1:7] = 2
    annotation[1:5, 1:4, 4:7] = 3
    energy[rng.random(energy.shape) < 0.05] = -1
    return energy, annotation


@pytest.fixture
def given(tmp_path, grid):
    """Write annotation, structures and genes; return options that name them."""
    _, annotation = grid
    np.save(tmp_path / "annotation.npy", annotation)
    (tmp_path / "structures.csv").write_text(STRUCTURES)
    (tmp_path / "genes.tsv").write_text("gene\n" + "\n".join(NAMES) + "\n")
    return {
        "annotation": str(tmp_path / "annotation.npy"),
        "structures": str(tmp_path / "structures.csv"),
        "genes": str(tmp_path / "genes.tsv"),
    }


def expected(grid):
    energy, annotation = grid
    place = np.argwhere(annotation > 0)
    values = energy[tuple(place.T)]
    return np.where(values == -1, np.nan, values), place


def made(tmp_path, path, **options):
    return prepare(Options(str(path), **options), tmp_path / "expression.npy").voxels


def check(found, grid, genes=NAMES):
    values, place = expected(grid)
    assert np.array_equal(found.genes, genes)
    assert np.array_equal(found.position, place)
    assert np.array_equal(found.expression, values, equal_nan=True)


def refused(tmp_path, path, **options):
    with pytest.raises(InputError) as caught:
        made(tmp_path, path, **options)
    assert not (tmp_path / "expression.npy").exists()
    assert not list(tmp_path.glob(".partial*"))
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------- the voxels


def atlas(**changes):
    position = np.array([[0, 0, 1], [0, 1, 2.5], [3, 0, 4]], np.float32)
    tree = pd.DataFrame({"id": [1, 2, 3], "acronym": ["NA", "x", "y"], "name": ["", "x", "y"], "parent": [0, 1, 2]})
    tree["depth"] = [0, 1, 2]
    fields = {
        "expression": np.array([[1, np.nan], [2, np.nan], [4, 0]], np.float32),
        "position": position,
        "genes": np.array(["NA", "nan"]),
        "voxel_um": 25.0,
        "shape": (4, 2, 6),
        "midline": 2.5,
        "structure": np.array([3, 0, 1], np.int32),
        "structures": tree,
    }
    return voxels.Voxels(**(fields | changes))


def paths(folder):
    return [folder / name for name in ("e.npy", "v.parquet", "g.tsv", "a.json", "s.tsv")]


def test_voxels_are_read_as_they_were_written(tmp_path):
    one = atlas(mirrored=True, notes=("x",))
    voxels.write(one, *paths(tmp_path), about=pd.DataFrame({"plane": ["coronal", ""]}))
    back = voxels.read(*paths(tmp_path))
    for name in ("expression", "position", "structure"):
        assert np.array_equal(getattr(back, name), getattr(one, name), equal_nan=True)
        assert getattr(back, name).dtype == getattr(one, name).dtype
    for name in ("voxel_um", "shape", "midline", "mirrored", "notes", "n"):
        assert getattr(back, name) == getattr(one, name)
    assert list(back.genes) == ["NA", "nan"]
    assert back.structures.equals(one.structures)
    genes = voxels.read_tsv(tmp_path / "g.tsv")
    assert genes["mean"].tolist() == pytest.approx([7 / 3, 0], rel=1e-5)
    assert genes["variance"].tolist() == pytest.approx([14 / 9, 0], rel=1e-5)
    assert genes["missing"].tolist() == pytest.approx([0, 2 / 3], rel=1e-5)
    assert genes["plane"].tolist() == ["coronal", ""]


def test_voxels_without_grid_midline_or_structures(tmp_path):
    one = atlas(shape=None, midline=None, structure=None, structures=None)
    voxels.write(one, *paths(tmp_path))
    back = voxels.read(*paths(tmp_path))
    assert (back.shape, back.midline, back.structure, back.structures) == (None, None, None, None)
    assert back.hemisphere() is None
    assert np.array_equal(back.folded(), one.position)
    with pytest.raises(ValueError, match="ancestors need"):
        back.ancestors(0)


def test_folding_halves_and_ancestors():
    one = atlas()
    assert one.folded()[:, 2].tolist() == [1.5, 0, 1.5]
    assert one.hemisphere().tolist() == [0, 1, 1]
    assert one.ancestors(0).tolist() == [1, 0, 1]
    assert one.ancestors(1).tolist() == [2, 0, 1]
    assert one.ancestors(5).tolist() == [3, 0, 1]


def test_moments_over_many_chunks(monkeypatch):
    monkeypatch.setattr(voxels, "BUDGET", 20)
    rng = np.random.default_rng(1)
    values = rng.normal(1000, 1, (97, 4)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:, 3] = np.nan
    assert len(list(voxels.row_chunks(values.shape, 20))) == 20
    monkeypatch.setattr(voxels.row_chunks, "__defaults__", (20,))
    moments = voxels.gene_moments(values)
    assert moments["mean"][:3].to_numpy() == pytest.approx(np.nanmean(values[:, :3], 0, dtype=float))
    assert moments["variance"][:3].to_numpy() == pytest.approx(np.nanvar(values[:, :3], 0, dtype=float), rel=1e-4)
    assert moments["missing"].to_numpy() == pytest.approx(np.isnan(values).mean(0))
    assert np.isnan(moments["mean"][3])


def test_a_stream_of_the_wrong_length_leaves_nothing(tmp_path):
    for chunks in ([np.zeros((2, 3))], [np.zeros((4, 2))]):
        with pytest.raises(ValueError, match="not"):
            voxels.stream_rows(tmp_path / "e.npy", (4, 3), chunks)
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_named(tmp_path):
    voxels.write(atlas(), *paths(tmp_path))
    np.save(tmp_path / "e.npy", np.zeros((3, 3), np.float32))
    with pytest.raises(InputError, match="3 voxels x 3 genes; expected 3 x 2"):
        voxels.read(*paths(tmp_path))
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json"):
        voxels.read(*paths(tmp_path))


# ------------------------------------------------------------------------------------------------------- volumes


def meta(volume, extra="", data="v.raw", kind="MET_FLOAT"):
    sizes = " ".join(map(str, volume.shape))
    return f"ObjectType = Image\nNDims = 3\nDimSize = {sizes}\nElementType = {kind}\n{extra}ElementDataFile = {data}\n"


def raw(volume):
    return volume.astype("<f4").tobytes(order="F")


def test_every_format_gives_the_same_volume(tmp_path):
    import nibabel
    import nrrd

    volume = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", volume)
    nrrd.write(str(tmp_path / "a.nrrd"), volume, index_order="F")
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Image(volume[..., None], np.eye(4)), tmp_path / "b.nii.gz")
    (tmp_path / "a.mhd").write_text(meta(volume))
    (tmp_path / "v.raw").write_bytes(raw(volume))
    (tmp_path / "b.mhd").write_text(meta(volume, "CompressedData = True\n", "v.zraw"))
    (tmp_path / "v.zraw").write_bytes(zlib.compress(raw(volume)))
    (tmp_path / "c.mhd").write_text(meta(volume, "BinaryDataByteOrderMSB = True\nHeaderSize = 3\n", "big.raw"))
    (tmp_path / "big.raw").write_bytes(b"xyz" + volume.astype(">f4").tobytes(order="F"))
    (tmp_path / "d.mhd").write_text(meta(volume, "HeaderSize = -1\n", "tail.raw"))
    (tmp_path / "tail.raw").write_bytes(b"any header" + raw(volume))
    (tmp_path / "a.mha").write_bytes(meta(volume, data="LOCAL").encode() + raw(volume))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/energy.mhd", meta(volume, data="energy.raw"))
        archive.writestr("folder/energy.raw", raw(volume))
        archive.writestr("folder/data_set.xml", "<x/>")
    files = [path for path in sorted(tmp_path.iterdir()) if volumes.suffix(path)]
    assert len(files) == 10
    for path in files:
        assert np.array_equal(volumes.read_volume(path), volume), path
    swapped = volumes.to_zyx(volume, "xzy")
    assert swapped.shape == (4, 5, 3)
    assert swapped[1, 2, 0] == volume[0, 1, 2]


def test_scaled_nifti_is_scaled(tmp_path):
    import nibabel

    image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 1)
    nibabel.save(image, tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii").get_fdata()
    assert np.array_equal(volumes.read_volume(tmp_path / "a.nii"), stored.astype(np.float32))


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (meta(np.zeros((2, 2, 2))), b"1234", "4 bytes; expected 32 for DimSize 2 2 2"),
        (meta(np.zeros((2, 2, 2)), kind="MET_OTHER"), b"", "no usable entry 'MET_OTHER'"),
        (meta(np.zeros((2, 2, 2)), data="../v.raw"), b"", "ElementDataFile = ../v.raw"),
        (meta(np.zeros((2, 2, 2)), data="/etc/passwd"), b"", "ElementDataFile = /etc/passwd"),
        (meta(np.zeros((2, 2, 2)), data="a%03d.raw 1 2 1"), b"", "one file in the same folder"),
        (meta(np.zeros((2, 2, 2)), "ElementNumberOfChannels = 3\n"), b"", "3 channels"),
        ("DimSize = 2 2\n", b"", "no usable entry 'ElementType'"),
        (meta(np.zeros((2, 2))), b"x" * 16, "an array of 2 x 2"),
        (meta(np.zeros((2, 2, 2)), "CompressedData = True\n"), b"nonsense", "cannot be read"),
        (meta(np.zeros((2, 2, 2)), data="none.raw"), b"", "none.raw"),
    ],
)
def test_bad_metaimages(tmp_path, header, data, message):
    (tmp_path / "a.mhd").write_text(header)
    (tmp_path / "v.raw").write_bytes(data)
    with pytest.raises(InputError) as caught:
        volumes.read_volume(tmp_path / "a.mhd")
    assert message in str(caught.value)
    assert "a.mhd" in str(caught.value)


def test_a_compressed_volume_does_not_swell_beyond_its_header(tmp_path):
    (tmp_path / "a.mhd").write_text(meta(np.zeros((2, 2, 2)), "CompressedData = True\n"))
    (tmp_path / "v.raw").write_bytes(zlib.compress(bytes(10**7)))
    with pytest.raises(InputError, match="33 bytes; expected 32"):
        volumes.read_volume(tmp_path / "a.mhd")


def test_bad_zips_and_names(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data_set.xml", "<x/>")
    with pytest.raises(InputError, match=r"0 \.mhd in it \(data_set.xml\)"):
        volumes.read_volume(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("energy.mhd", meta(np.zeros((2, 2, 2)), data="energy.raw"))
    with pytest.raises(InputError, match=r"no member energy.raw"):
        volumes.read_volume(tmp_path / "b.zip")
    monkeypatch.setattr(volumes, "MAX_MEMBER", 10)
    with pytest.raises(InputError, match="at most 10"):
        volumes.read_volume(tmp_path / "b.zip")
    (tmp_path / "c.zip").write_bytes(b"<html>")
    with pytest.raises(InputError, match="cannot be read"):
        volumes.read_volume(tmp_path / "c.zip")
    with pytest.raises(InputError, match=r"a name ending in '.tif'"):
        volumes.read_volume(tmp_path / "a.tif")
    with pytest.raises(InputError, match="does not exist"):
        volumes.read_volume(tmp_path / "none.nrrd")
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        volumes.read_volume(tmp_path / "o.npy")


def test_real_volumes(real_data):
    """Prox1 is highest in the dentate gyrus, Pdyn in the ventromedial hypothalamus and the accumbens."""
    folder = real_data / "allen_ish_200um" / "original"
    annotation = volumes.to_zyx(volumes.read_volume(folder / "P56_Mouse_gridAnnotation.zip"), "zyx")
    assert annotation.shape == (67, 41, 58)
    assert (annotation > 0).sum() == 62529
    tree = tables.structures(folder / "allen_structure_tree.csv").set_index("id")
    assert set(np.unique(annotation)) <= {0, *tree.index}
    assert tree.loc[997, "depth"] == 0
    for name, top in (("Prox1_data.zip", {"DG-po", "DG-sg"}), ("Pdyn_P56_coronal_71717084_200um.zip", {"VMHdm"})):
        energy = volumes.read_volume(folder / name)
        valid = (annotation > 0) & (energy >= 0)
        means = pd.Series(energy[valid]).groupby(annotation[valid]).agg(["mean", "size"])
        best = means[means["size"] >= 10].sort_values("mean").index[-3:]
        assert top & set(tree.loc[best, "acronym"]), name


# -------------------------------------------------------------------------------------------------------- tables


def test_names_of_genes(tmp_path):
    path = tmp_path / "g.txt"
    path.write_text("a\nNA\nb\n")
    assert tables.gene_names(path).tolist() == ["a", "NA", "b"]
    path.write_text("entrez\tSymbol\n1\ta\n2\tnan\n")
    assert tables.gene_names(path).tolist() == ["a", "nan"]
    path.write_text("a\nb\n\na\nb\nc\n")
    with pytest.raises(InputError, match=r"2 genes more than once \(a, b\)"):
        tables.gene_names(path)
    path.write_text("x\ty\n1\t2\n")
    with pytest.raises(InputError, match=r"no column gene \(x, y\)"):
        tables.gene_names(path)
    path.write_text("n\tgene\n1\ta\n2\t\n")
    with pytest.raises(InputError, match=r"1 genes without a name \(the first is number 2\)"):
        tables.gene_names(path)
    path.write_text("")
    with pytest.raises(InputError, match="an empty first line"):
        tables.gene_names(path)


def test_positions(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("xcoord ycoord zcoord\n1 2 3\n4 5 6\n7 8 9\n")
    place, names = tables.positions(path, ["xcoord", "zcoord", "ycoord"], 2)
    assert place.tolist() == [[1, 3, 2], [4, 6, 5]]
    assert names is None
    path.write_text("cell,z,y,x\na,1,2,3\nb,1,,3\nc,inf,1,1\n")
    assert tables.positions(path, "zyx", 1)[1].tolist() == ["a"]
    with pytest.raises(InputError, match=r"no finite number in 2 of 3 rows \(the first is number 2\)"):
        tables.positions(path, "zyx")
    with pytest.raises(InputError, match=r"3 rows; expected 4 or more"):
        tables.positions(path, "zyx", 4)
    (tmp_path / "r.txt").write_text("z y x\n1 10 20 30\n2 11 21 31\n")  # numbers of the rows, as R writes them
    place, names = tables.positions(tmp_path / "r.txt", "zyx")
    assert (place.tolist(), names) == ([[10, 20, 30], [11, 21, 31]], None)
    with pytest.raises(InputError, match=r"no column 'depth' .*atlas.coordinates"):
        tables.positions(path, ["depth", "y", "x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,acronym\n1,a\n", "no column parent"),
        ("id,acronym,parent\n1,a,\n1,b,\n", "the id 1 more than once"),
        ("id,acronym,parent\n1,a,7\n", r"1 parents that are no structures \(7\)"),
        ("id,acronym,parent\n1,a,2\n2,b,1\n", "above itself"),
        ("id,acronym,parent\n1.5,a,\n", "'1.5'; expected a whole number"),
        ("id,acronym,parent\n3000000000,a,\n", "at most 2147483647"),
        ("id,acronym,parent\n1,a\n2,b,1,5\n", "cannot be read"),
    ],
)
def test_bad_structure_trees(tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        tables.structures(tmp_path / "s.csv")


def test_structure_tree(tmp_path):
    (tmp_path / "s.csv").write_text(STRUCTURES)
    tree = tables.structures(tmp_path / "s.csv")
    assert tree.columns.tolist() == ["id", "acronym", "name", "parent", "depth", "colour"]
    assert tree["id"].tolist() == [1, 2, 3]
    assert tree["depth"].tolist() == [0, 1, 1]
    assert tree["colour"].tolist() == ["#FF0000", "#00FF00", "#0000FF"]


def test_lists_of_volumes(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("acronym,cutting_plane,Section_Data_ID,URL\nNA,Coronal,12,x\n")
    assert tables.is_gene_table(path)
    row = tables.gene_table(path).iloc[0]
    assert (row.gene, row.path, row.experiment, row.plane) == ("NA", "", "12", "coronal")
    path.write_text("gene,path\na,sub/a.nrrd\n")
    assert tables.gene_table(path)["path"][0] == str(tmp_path / "sub" / "a.nrrd")
    path.write_text("a,b,c\n1,2,3\n")
    assert not tables.is_gene_table(path)
    path.write_text("gene,path,experiment,plane,sha256\n,a,,,\nb,,,,\nc,,x7,,\nd,p,,axial,\ne,p,,,12\n")
    with pytest.raises(InputError) as caught:
        tables.gene_table(path)
    assert [fault.where.split("t.csv, ")[1] for fault in caught.value.faults] == [f"line {n}" for n in range(2, 7)]


def test_matrix_of_text(tmp_path):
    path = tmp_path / "m.tsv"
    path.write_text("NA\tb\n1\t2\n\t4\n")
    values, genes, names = tables.matrix(path, 2)
    assert genes.tolist() == ["NA", "b"]
    assert np.array_equal(values, [[1, 2], [np.nan, 4]], equal_nan=True)
    assert names is None
    for header in ("cell\ta\tb", "\ta\tb", "a\tb"):
        path.write_text(f"{header}\nc1\t1\t2\nc2\t3\t4\n")
        values, genes, names = tables.matrix(path, 2)
        assert (genes.tolist(), names.tolist()) == (["a", "b"], ["c1", "c2"])
        assert values.tolist() == [[1, 2], [3, 4]]
    with gzip.open(tmp_path / "m.csv.gz", "wt") as handle:
        handle.write("a,b\n1,2\n")
    assert tables.matrix(tmp_path / "m.csv.gz", 1)[0].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n1,2\n1,2\n", "3 rows; expected 2, as there are positions"),
        ("a,b\n1,2\n", "1 rows; expected 2, as there are positions"),
        ("a,b\n1,2\n3,x4\n", r"line 3, column b: found 'x4'"),
        ("a,a\n1,2\n3,4\n", r"header: found 1 genes more than once \(a\)"),
        ("a,,c\n1,2,3\n1,2,3\n", "1 genes without a name"),
        ("a,b\n1,2\n" + 300 * "3,4\n" + "3,4,5\n", "cannot be read"),
        ("a,b\n1,2,\n3,4,\n", "2 names over 3 columns.*separator at the end"),
        ("a,b\n1\n", "2 names over 1 columns"),
        ("a,b\n", "no rows that can be read"),
    ],
)
def test_bad_matrices(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        tables.matrix(tmp_path / "m.csv", 2)


# ------------------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize("form", ["genes last", "genes first", "fortran", "npz", "axes"])
def test_arrays_of_volumes(tmp_path, grid, given, form):
    energy, annotation = grid
    path, axes = tmp_path / "e.npy", "zyx"
    if form == "genes last":
        np.save(path, energy)
    elif form == "genes first":
        np.save(path, np.moveaxis(energy, -1, 0))
    elif form == "fortran":
        np.save(path, np.asfortranarray(np.moveaxis(energy, -1, 0)))
    elif form == "npz":
        path = tmp_path / "e.npz"
        np.savez(path, energy=energy, gene_names=NAMES, voxel_um=200)
        given.pop("genes")
    else:
        axes = "xzy"
        np.save(path, np.moveaxis(energy.transpose(2, 0, 1, 3), -1, 0))
        np.save(given["annotation"], annotation.transpose(2, 0, 1))
    found = made(tmp_path, path, min_valid=0.5, axes=axes, **given)
    check(found, grid)
    assert found.shape == SHAPE
    assert found.midline == 3.5
    assert np.array_equal(found.structure, annotation[annotation > 0])
    assert found.structures["depth"].tolist() == [0, 1, 1]


def test_positions_by_genes(tmp_path, grid, given):
    values, place = expected(grid)
    np.save(tmp_path / "e.npy", np.nan_to_num(values, nan=-1))
    frame = pd.DataFrame(place, columns=["z", "y", "x"])
    frame.to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    options = given | {"positions": str(tmp_path / "p.tsv"), "min_valid": 0.5}
    found = made(tmp_path, tmp_path / "e.npy", **options)
    check(found, grid)
    assert found.shape == SHAPE  # distinct whole numbers on the annotation's grid
    pd.DataFrame(values, columns=NAMES).to_csv(tmp_path / "e.csv", index=False, float_format="%.9g")
    check(made(tmp_path, tmp_path / "e.csv", **options), grid)
    np.savez(tmp_path / "e.npz", expression=values, coordinates=place, shape=SHAPE)
    found = made(tmp_path, tmp_path / "e.npz", min_valid=0.5, genes=given["genes"])
    check(found, grid)
    assert (found.shape, found.structure) == (SHAPE, None)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("place_in", ["spatial_3d", "obs"])
def test_h5ad(tmp_path, grid, sparse, place_in):
    import anndata
    import scipy.sparse as sp

    values, place = expected(grid)
    counts = np.nan_to_num(values, nan=-1).astype(np.float64)
    data = anndata.AnnData(sp.csr_matrix(counts) if sparse else counts, var=pd.DataFrame(index=NAMES))
    if place_in == "obs":
        data.obs[["deep", "y", "x"]] = place
    else:
        data.obsm["spatial"] = place[:, 1:]
        data.obsm["spatial_3d"] = place[:, ::-1]
    data.write_h5ad(tmp_path / "a.h5ad")
    found = made(tmp_path, tmp_path / "a.h5ad", min_valid=0.5, coordinates=("deep", "y", "x"))
    check(found, grid)
    assert found.shape is None
    assert found.midline == 3.5


def test_h5ad_without_third_dimension(tmp_path):
    import anndata

    data = anndata.AnnData(np.ones((3, 2)))
    data.obsm["spatial"] = np.zeros((3, 2))
    data.write_h5ad(tmp_path / "a.h5ad")
    message = refused(tmp_path, tmp_path / "a.h5ad")
    assert "no positions in three dimensions (obsm spatial" in message
    assert "atlas.coordinates" in message
    (tmp_path / "b.h5ad").write_bytes(b"no")
    assert "cannot be read" in refused(tmp_path, tmp_path / "b.h5ad")


def energy_zip(volume):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("energy.mhd", meta(volume, data="energy.raw"))
        archive.writestr("energy.raw", raw(volume))
    return content.getvalue()


def test_folders_of_volumes(tmp_path, grid, given):
    energy, _ = grid
    folder = tmp_path / "volumes"
    given.pop("genes")
    for gene, name in enumerate(NAMES):
        if gene < 3:  # as the Allen Institute packs them
            (folder / name).mkdir(parents=True)
            (folder / name / "energy.mhd").write_text(meta(energy[..., gene], data="energy.raw"))
            (folder / name / "energy.raw").write_bytes(raw(energy[..., gene]))
        elif gene < 5:
            (folder / f"{name}.zip").write_bytes(energy_zip(energy[..., gene]))
        else:
            np.save(folder / f"{name}.npy", energy[..., gene])
    (folder / "notes.txt").write_text("no volume")
    check(made(tmp_path, folder, min_valid=0.5, **given), grid)
    files, faults = sources.discover(config(input=str(folder)), "results/x")
    assert not faults
    assert len(files.input) == N_GENES
    np.save(folder / "g7.nii.npy", energy[..., 0])
    np.save(folder / "g6.npy", energy[:2, ..., 0])
    assert "g6.npy): found 2 x 5 x 8; expected 6 x 5 x 8" in refused_again(tmp_path, folder)
    (folder / "Nrp1.npy").write_bytes(b"")
    assert "Nrp1/energy.mhd and Nrp1.npy; expected one volume a gene" in refused(tmp_path, folder)
    (tmp_path / "empty").mkdir()
    assert "no volume" in refused(tmp_path, tmp_path / "empty")


def experiment_table(tmp_path, grid, rows):
    """Write volumes of given planes and share of data (from the left), and the table that lists them."""
    energy, _ = grid
    lines = ["gene\tpath\tplane\texperiment"]
    for number, (gene, plane, columns) in enumerate(rows):
        volume = energy[..., list(NAMES).index(gene)] + number
        volume[..., columns:] = -1
        np.save(tmp_path / f"{number}.npy", volume)
        lines.append(f"{gene}\t{number}.npy\t{plane}\t{100 + number}")
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path / "t.tsv"


def test_of_several_experiments_the_coronal_one_with_most_data(tmp_path, grid, given):
    given.pop("genes")
    rows = [("Nrp1", "sagittal", 8), ("Nrp1", "coronal", 6), ("Nrp1", "coronal", 7), ("Nrp1", "coronal", 5)]
    rows += [("Pdyn", "sagittal", 3), ("Pdyn", "sagittal", 4), ("Pdyn", "coronal", 5), ("g5", "coronal", 4)]
    table = experiment_table(tmp_path, grid, rows)
    prepared = prepare(Options(str(table), **given), tmp_path / "expression.npy")
    assert prepared.voxels.genes.tolist() == ["Nrp1", "Pdyn"]
    assert prepared.about["experiment"].tolist() == ["102", "105"]
    assert prepared.about["plane"].tolist() == ["coronal", "sagittal"]
    assert prepared.voxels.notes == (
        "1 of 3 genes have data in too few voxels (atlas.min_valid) and were left out: g5.",
    )
    with pytest.raises(InputError, match="2 of 3 genes with data in too few voxels"):
        prepare(Options(str(table), planes=["coronal"], **given), tmp_path / "e.npy")
    sagittal = prepare(Options(str(table), planes=["sagittal"], **given), tmp_path / "e.npy").about
    assert sagittal["experiment"].tolist() == ["100", "105"]


def test_sagittal_genes_are_mirrored_when_asked(tmp_path, grid, given):
    given.pop("genes")
    table = experiment_table(tmp_path, grid, [("Nrp1", "coronal", 8), ("Pdyn", "sagittal", 4)])
    plain = made(tmp_path, table, min_valid=0.5, **given)
    found = made(tmp_path, table, min_valid=0.5, mirror=True, **given)
    assert (plain.mirrored, found.mirrored) == (False, True)
    column = found.expression[:, 1].copy()
    image = mirror_images(found.position, 3.5)
    assert (image >= 0).all()
    assert np.array_equal(found.position[image][:, 2], 7 - found.position[:, 2])
    before = plain.expression[:, 1]
    assert np.array_equal(column, np.where(np.isnan(before), before[image], before), equal_nan=True)
    assert np.isfinite(column).mean() > 1.8 * np.isfinite(before).mean()
    assert np.array_equal(found.expression[:, 0], plain.expression[:, 0], equal_nan=True)
    assert "false, where atlas.midline is null" in refused_again(tmp_path, table, mirror=True, midline=None, **given)


def refused_again(tmp_path, path, **options):
    (tmp_path / "expression.npy").unlink()
    return refused(tmp_path, path, **options)


def test_mirrored_halves_are_not_held_out(tmp_path):
    table = tmp_path / "table.tsv"
    table.write_text("gene\tpath\n")
    options = {
        "input": str(table),
        "genes": "",
        "positions": "",
        "annotation": "",
        "structures": "",
        "midline": "middle",
    }
    both = options | {"mirror": True, "protocols": ["block", "hemisphere"]}
    assert "hemisphere among atlas.protocols" in str(sources.discover(both, "results/x")[1].items)
    assert "hemisphere" not in str(sources.discover(both | {"mirror": False}, "results/x")[1].items)


def test_mirror_needs_planes(tmp_path, grid, given):
    np.save(tmp_path / "e.npy", grid[0])
    assert "names no planes of section" in refused(tmp_path, tmp_path / "e.npy", mirror=True, min_valid=0.5, **given)


# -------------------------------------------------------------------------------------------------- what is refused


def test_what_does_not_fit_together(tmp_path, grid, given):
    energy, annotation = grid
    np.save(tmp_path / "e.npy", energy)
    path = tmp_path / "e.npy"
    (tmp_path / "few.tsv").write_text("gene\na\nb\n")
    message = refused(tmp_path, path, **(given | {"genes": str(tmp_path / "few.tsv")}))
    assert "found 6 x 5 x 8 x 7; expected 2 genes before or after the grid of the annotation (6 x 5 x 8" in message
    assert "atlas.genes: found nothing" in refused(tmp_path, path, **(given | {"genes": ""}))
    np.save(tmp_path / "other.npy", annotation[:, :, :-1])
    assert "of the annotation (6 x 5 x 7" in refused(
        tmp_path, path, **(given | {"annotation": str(tmp_path / "other.npy")})
    )
    unknown = annotation.copy()
    unknown[2, 2, 2] = 99
    np.save(tmp_path / "other.npy", unknown)
    message = refused(tmp_path, path, **(given | {"annotation": str(tmp_path / "other.npy")}))
    assert "1 ids that" in message
    assert "lacks (99), 1.4% of the voxels" in message
    np.save(tmp_path / "other.npy", annotation - 0.5)
    message = refused(tmp_path, path, **(given | {"annotation": str(tmp_path / "other.npy")}))
    assert "values from -0.5 to 2.5" in message
    assert "middle, a number of voxels, or null" in refused(tmp_path, path, midline="left", min_valid=0.5, **given)
    assert "a number between 1 and 6" in refused(tmp_path, path, midline=7, min_valid=0.5, **given)
    assert "does not exist" in refused(tmp_path, tmp_path / "none.npy")
    (tmp_path / "a.xlsx").write_text("")
    assert "a name ending in '.xlsx'" in refused(tmp_path, tmp_path / "a.xlsx")


def test_bad_arrays(tmp_path, grid, given):
    values, place = expected(grid)
    np.savez(tmp_path / "e.npz", a=values, b=values)
    assert "the arrays a, b; expected one called expression" in refused(tmp_path, tmp_path / "e.npz")
    np.savez(tmp_path / "e.npz", expression=values, voxel_um=25)
    assert "atlas.voxel_um: found 200.0; expected 25, as" in refused(tmp_path, tmp_path / "e.npz", **given)
    np.savez(tmp_path / "e.npz", expression=values)
    assert "atlas.positions: found nothing" in refused(tmp_path, tmp_path / "e.npz", **given)
    np.savez(tmp_path / "e.npz", expression=values, coordinates=place[:, :2])
    assert "voxels x 3" in refused(tmp_path, tmp_path / "e.npz", **given)
    np.savez(tmp_path / "e.npz", expression=values[1:], coordinates=place)
    assert f"{len(place) - 1} rows; expected {len(place)}, as there are positions" in refused(
        tmp_path, tmp_path / "e.npz", **given
    )
    np.savez(tmp_path / "e.npz", expression=values.T, coordinates=np.zeros((N_GENES, 3)))
    assert f"{len(place)} columns; expected 7, as there are names of genes" in refused(
        tmp_path, tmp_path / "e.npz", **given
    )
    np.savez(tmp_path / "e.npz", expression=values, coordinates=place * 3)
    assert "positions outside (number 3: 3, 3, 9)" in refused(tmp_path, tmp_path / "e.npz", **given)
    values[5, 2] = np.inf
    np.savez(tmp_path / "e.npz", expression=values, coordinates=place)
    assert "an infinite value of Pdyn at z, y, x = 1, 1, 6" in refused(tmp_path, tmp_path / "e.npz", **given)
    np.save(tmp_path / "e.npy", np.zeros((3, 3, 3)))
    assert "3 dimensions of float64" in refused(tmp_path, tmp_path / "e.npy", **given)
    (tmp_path / "e.npy").write_bytes(b"no array")
    assert "cannot be read" in refused(tmp_path, tmp_path / "e.npy", **given)


def test_rows_named_in_another_order(tmp_path):
    (tmp_path / "e.csv").write_text("cell,a,b\nc1,1,2\nc2,3,4\n")
    (tmp_path / "p.csv").write_text("cell,z,y,x\nc2,0,0,0\nc1,0,0,1\n")
    message = refused(tmp_path, tmp_path / "e.csv", positions=str(tmp_path / "p.csv"))
    assert "row 1 called 'c1'; expected 'c2', as in atlas.positions" in message
    assert "atlas.positions: found nothing" in refused(tmp_path, tmp_path / "e.csv")


def test_genes_left_out_are_named_and_none_left_is_an_error(tmp_path, grid, given):
    energy, _ = grid
    energy[..., 1] = -1
    energy[..., 2] = 5
    energy[:4, ..., 3] = -1
    energy[0, 0, 0, 1] = energy[0, 0, 0, 2] = 7  # outside the organ: no help
    np.save(tmp_path / "e.npy", energy)
    found = made(tmp_path, tmp_path / "e.npy", min_valid=0.5, **given)
    assert found.genes.tolist() == ["NA", "g5", "g6", "g7"]
    assert found.notes == (
        "1 of 7 genes have no data and were left out: Nrp1.",
        "1 of 7 genes have data in too few voxels (atlas.min_valid) and were left out: Prox1.",
        "1 of 7 genes have the same value everywhere and were left out: Pdyn.",
    )
    energy[...] = -1
    np.save(tmp_path / "e.npy", energy)
    assert "no voxel with data in the organ" in refused_again(tmp_path, tmp_path / "e.npy", **given)
    energy[..., :2] = np.arange(8)[:, None]
    energy[..., 1] = 4
    np.save(tmp_path / "e.npy", energy)
    message = refused(tmp_path, tmp_path / "e.npy", **given)
    assert "5 of 7 genes with no data" in message
    assert "1 of 7 genes with the same value everywhere" in message


def test_other_codes_for_missing(tmp_path, grid, given):
    energy, _ = grid
    energy[energy == -1] = 255
    np.save(tmp_path / "e.npy", energy)
    found = made(tmp_path, tmp_path / "e.npy", min_valid=0.5, missing=[255, -9], **given)
    check(found, (np.where(energy == 255, -1, energy), grid[1]))


# ---------------------------------------------------------------------------------------------- background, midline


def test_background_by_annotation_clusters_or_not_at_all(tmp_path, grid, given):
    energy, annotation = grid
    rng = np.random.default_rng(3)
    outside = annotation == 0
    energy[outside] = np.where(rng.random((outside.sum(), N_GENES)) < 0.7, 0, 0.05)
    energy[0, 0, 0] = -1  # nothing measured
    np.save(tmp_path / "e.npy", energy)
    found = made(tmp_path, tmp_path / "e.npy", min_valid=0.5, background="clusters", **given)
    assert np.array_equal(found.position, np.argwhere(~outside))
    n = outside.sum() - 1
    assert found.notes[1] == f"{n} voxels of the dimmer and outer of two clusters were left out as background."
    assert found.notes[0].startswith("1 of 240 voxels have no data")
    everything = made(tmp_path, tmp_path / "e.npy", min_valid=0.5, background="none", **given)
    assert everything.n == 239
    given.pop("annotation")
    without = made(tmp_path, tmp_path / "e.npy", min_valid=0.5, **given)
    assert (without.n, without.structure) == (239, None)


def test_positions_outside_the_annotation_are_background(tmp_path, grid, given):
    energy, annotation = grid
    place = np.argwhere(np.ones(SHAPE, bool))
    np.savez(tmp_path / "e.npz", expression=energy.reshape(-1, N_GENES), coordinates=place)
    found = made(tmp_path, tmp_path / "e.npz", min_valid=0.5, **given)
    check(found, grid)
    assert found.notes[0] == f"{(annotation == 0).sum()} voxels lie outside the annotation and were left out."


def test_a_dim_core_is_no_background():
    from histoweft.atlas.prepare import VoxelStats

    place = np.argwhere(np.ones((9, 9, 9), bool)).astype(np.float32)
    core = np.abs(place - 4).max(1) <= 2
    mean = np.where(core, 0.1, 5.0) + 0.01 * place[:, 0]
    notes = []
    dim = dim_and_outer(VoxelStats(np.ones(729), np.where(core, 0.2, 0.9), mean), place, np.ones(729, bool), notes)
    assert not dim.any()
    assert "does not lie further out" in notes[0]
    mean = np.where(core, 5.0, 0.1)
    dim = dim_and_outer(VoxelStats(np.ones(729), np.where(core, 0.9, 0.2), mean), place, np.ones(729, bool), notes)
    assert np.array_equal(dim, ~core)
    same = VoxelStats(np.ones(729), np.ones(729), np.ones(729))
    assert not dim_and_outer(same, place, np.ones(729, bool), notes).any()
    assert "same mean expression" in notes[-1]


def test_midline():
    place = np.array([[0, 0, 2.0], [0, 0, 9]])
    assert middle("middle", place, (3, 3, 20)) == 9.5
    assert middle("middle", place, None) == 5.5
    assert middle(4, place, None) == 4.0
    assert middle(None, place, (3, 3, 20)) is None
    assert mirror_images(np.array([[0, 0, 1], [0, 0, 4], [1, 0, 1]], np.float32), 2.5).tolist() == [1, 0, -1]


def test_the_demos_atlas(tmp_path):
    from histoweft.simulate.atlas import STRUCTURES as tree
    from histoweft.simulate.atlas import draw_atlas

    study = type("Study", (), {"atlas": draw_atlas(0, 300)})
    simulated._write_atlas(study, tmp_path)
    names = {name: str(tmp_path / f"{name}.tsv") for name in ("genes", "structures")}
    found = made(tmp_path, tmp_path / "expression.npz", annotation=str(tmp_path / "annotation.npy"), **names)
    drawn = study.atlas
    assert found.shape == drawn.annotation.shape
    assert np.array_equal(found.position, drawn.coordinates)
    assert np.array_equal(found.structure, drawn.annotation[drawn.annotation > 0])
    at = np.isin(drawn.genes, found.genes)
    assert np.array_equal(found.expression, np.where(drawn.expression < 0, np.nan, drawn.expression)[:, at], True)
    assert found.structures["acronym"].tolist() == [row[1] for row in tree]
    assert set(found.ancestors(1)) == {2, 3}


def test_drosophila(tmp_path, real_data):
    folder = real_data / "bdtnp_drosophila_3d" / "original"
    options = {
        "positions": str(folder / "geometry.txt"),
        "positions_rows": 3039,
        "coordinates": ("xcoord", "zcoord", "ycoord"),
        "voxel_um": 1.0,
        "midline": None,
    }
    found = made(tmp_path, folder / "dge.txt", **options)
    assert (found.n, len(found.genes), found.genes[0]) == (3039, 84, "aay")
    assert found.position[0].tolist() == pytest.approx([-194.04, 30.2, 0.22])
    assert found.expression[0, 0] == pytest.approx(0.116516)
    (tmp_path / "expression.npy").unlink()
    message = refused(tmp_path, folder / "dge.txt", **(options | {"positions_rows": None}))
    assert "3039 rows; expected 6078" in message


# ---------------------------------------------------------------------------------------------- plan and downloads


def config(**changes):
    options = {"input": "", "genes": "", "positions": "", "annotation": "", "structures": "", "midline": "middle"}
    return options | {"mirror": False} | changes


def test_the_files_of_a_study(tmp_path):
    (tmp_path / "t.csv").write_text("gene,path\na,a.nrrd\nb,b.nrrd\n")
    (tmp_path / "genes.tsv").write_text("a\n")
    files, faults = sources.discover(config(input=str(tmp_path / "t.csv"), genes=str(tmp_path / "genes.tsv")), "r/x")
    assert not faults
    assert files.input == tuple(str(tmp_path / name) for name in ("t.csv", "a.nrrd", "b.nrrd"))
    assert files.genes == (str(tmp_path / "genes.tsv"),)
    (tmp_path / "t.csv").write_text("gene,experiment\na,1\n")
    files, faults = sources.discover(config(input=str(tmp_path / "t.csv")), "r/x")
    assert (files.input, files.experiments) == ((), str(tmp_path / "t.csv"))
    files, faults = sources.discover(config(input="results/x/simulated/e.npy"), "results/x")
    assert not faults
    assert files.input == ("results/x/simulated/e.npy",)
    wrong = config(input=str(tmp_path / "t.cvs"), midline="left")
    _, faults = sources.discover(wrong, "r/x")
    assert [fault.where for fault in faults.items] == ["config: atlas.input", "config: atlas.midline"]
    assert "t.csv" in faults.items[0].hint
    assert not sources.discover(wrong, "r/x", check=False)[1]
    _, faults = sources.discover(config(input=str(tmp_path / "t.csv"), mirror=True, midline=None), "r/x")
    assert [fault.where for fault in faults.items] == ["config: atlas.mirror"]
    assert sources.discover(config(annotation="none"), "r/x") == (sources.Files(), sources.Faults())
    own = config(input="results/x/simulated/full_atlas/expression.npy", structures=str(tmp_path / "genes.tsv"))
    _, faults = sources.discover(own, "results/x")
    assert [fault.where for fault in faults.items] == ["config: atlas.annotation"]


def test_paths_of_a_study_start_at_its_data_root():
    from histoweft import study

    paths = {"input": "results/s/simulated/full_atlas/e.npy", "annotation": "a.nrrd", "genes": "/abs/g.tsv"}
    made, faults = study.load({"study": "s", "data_root": "data", "atlas": paths})
    assert not faults
    found = {name: made.config["atlas"][name] for name in paths}
    assert found == paths | {"annotation": "data/a.nrrd"}
    assert made.config["atlas"]["structures"] == ""


@pytest.fixture
def server(grid):
    energy, _ = grid
    grids = {f"/grid/{n}?include=energy": energy_zip(energy[..., n]) for n in range(N_GENES)}
    with serving(grids) as one:
        one.url += "/grid/"
        yield one


def wanted(*numbers, sha256=""):
    return pd.DataFrame(
        {"gene": NAMES[list(numbers)], "path": "", "experiment": [str(n) for n in numbers], "plane": "coronal"}
    ).assign(sha256=sha256)


def fetch(table, tmp_path, url):
    return experiments.fetch_experiments(table, tmp_path / "cache", url, tries=1, timeout=5)


def test_experiments_are_downloaded_once_and_read(tmp_path, server, grid, given):
    given.pop("genes")
    done = fetch(wanted(*range(3)), tmp_path, server.url)
    digests = [hashlib.sha256(server.files[f"/grid/{n}?include=energy"]).hexdigest() for n in range(3)]
    assert done["sha256"].tolist() == digests
    fetch(wanted(*range(N_GENES)), tmp_path, server.url)
    assert len(server.seen) == N_GENES
    known = pd.read_csv(tmp_path / "cache" / "sha256.tsv", sep="\t", dtype=str)
    assert known["experiment"].tolist() == [str(n) for n in range(N_GENES)]
    done = fetch(wanted(*range(N_GENES)), tmp_path, server.url)
    (tmp_path / "atlas").mkdir()
    experiments.write_table(done, tmp_path / "atlas" / "experiments.tsv")
    assert not Path(pd.read_csv(tmp_path / "atlas" / "experiments.tsv", sep="\t")["path"][0]).is_absolute()
    check(made(tmp_path, tmp_path / "atlas" / "experiments.tsv", min_valid=0.5, **given), grid)


def test_volumes_that_are_there_are_not_downloaded(tmp_path, server):
    table = wanted(0, 1)
    table.loc[0, "path"] = "mine.nrrd"
    done = fetch(table, tmp_path, server.url)
    assert done["path"].tolist() == ["mine.nrrd", str(tmp_path / "cache" / "1.zip")]
    assert server.seen == ["/grid/1?include=energy"]


def test_a_changed_download_is_refused_and_a_damaged_file_comes_anew(tmp_path, server):
    fetch(wanted(1), tmp_path, server.url)
    path = tmp_path / "cache" / "1.zip"
    whole = path.read_bytes()
    path.write_bytes(b"damaged")
    fetch(wanted(1), tmp_path, server.url)
    assert path.read_bytes() == whole
    path.write_bytes(b"damaged")
    server.files["/grid/1?include=energy"] = server.files["/grid/2?include=energy"]
    with pytest.raises(InputError, match=hashlib.sha256(whole).hexdigest()):
        fetch(wanted(1), tmp_path, server.url)
    with pytest.raises(InputError, match="0" * 64):
        fetch(wanted(3, sha256="0" * 64), tmp_path, server.url)
    assert not (tmp_path / "cache" / "3.zip").exists()


def test_what_cannot_be_had_is_said_together_and_the_rest_is_kept(tmp_path, server):
    del server.files["/grid/1?include=energy"]
    server.files["/grid/2?include=energy"] = b"<html>log in</html>"
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    server.files["/grid/3?include=energy"] = empty.getvalue()
    with pytest.raises(InputError) as caught:
        fetch(wanted(0, 1, 2, 3, 4), tmp_path, server.url)
    message = str(caught.value)
    assert "3 faults" in message
    assert "/grid/1?include=energy: found HTTP status 404" in message
    assert "/grid/2?include=energy: found no zip archive" in message
    assert "/grid/3?include=energy: found 0 .mhd in it" in message
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["0.zip", "4.zip", "sha256.tsv"]


def test_a_dead_server_is_given_up(tmp_path, server):
    server.files.clear()
    with pytest.raises(InputError, match="2 experiments not tried"):
        fetch(wanted(*range(7)), tmp_path, server.url)
    assert len(server.seen) == experiments.PATIENCE


def test_downloads_too_large_or_not_over_https(tmp_path, server, monkeypatch):
    monkeypatch.setattr(experiments, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="more than 100 bytes"):
        fetch(wanted(0), tmp_path, server.url)
    with pytest.raises(InputError, match="an https url"):
        fetch(wanted(0), tmp_path, "http://example.org/grid/")


def test_meta_is_plain_json(tmp_path):
    voxels.write(atlas(), *paths(tmp_path))
    assert json.loads((tmp_path / "a.json").read_text())["shape"] == [4, 2, 6]
