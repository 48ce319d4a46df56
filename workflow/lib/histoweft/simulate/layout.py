"""Where each file of a simulated study lies; standard library only, so that a Snakefile can import it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: One entry a section; the four keys are columns of the sample sheet.
SECTIONS = [
    {"sample": "P1_pre", "patient": "P1", "batch": "run1", "condition": "untreated"},
    {"sample": "P1_post", "patient": "P1", "batch": "run1", "condition": "treated"},
    {"sample": "P2_pre", "patient": "P2", "batch": "run2", "condition": "untreated"},
    {"sample": "P2_post", "patient": "P2", "batch": "run2", "condition": "treated"},
]

#: Micrometres per pixel of the full-resolution image of every simulated section.
MPP = 0.96
#: Distance between the centres of neighbouring spots, and their true diameter, in micrometres.
PITCH_UM = 100.0
SPOT_DIAMETER_UM = 55.0

#: Relative to ``<study>/<sample>/``.
SECTION_FILES = [
    "filtered_feature_bc_matrix.h5",
    "spatial/tissue_positions.csv",
    "spatial/scalefactors_json.json",
    "spatial/tissue_hires_image.png",
    "spatial/tissue_lowres_image.png",
    "labels.tsv",
]

#: Relative to ``<study>/``.
REFERENCE_FILES = ["reference/reference.h5ad"]
ATLAS_FILES = [
    "atlas/expression.npz",
    "atlas/genes.tsv",
    "atlas/annotation.npy",
    "atlas/structures.tsv",
]

#: What the rule simulate_atlas makes, relative to ``<study>/``.
FULL_ATLAS_FILES = {
    "expression": "full_atlas/expression.npy",
    "positions": "full_atlas/positions.tsv",
    "genes": "full_atlas/genes.tsv",
}


def truth_files(sections: Iterable[Mapping[str, str]] = SECTIONS) -> list[str]:
    """Return the truth files of a study with these sections, relative to the study's folder."""
    names = [section["sample"] for section in sections]
    return [
        *(f"truth/{name}.tsv" for name in names),
        *(f"truth/{name}.cells.npz" for name in names),
        "truth/genes.tsv",
        "truth/interactions.tsv",
        "truth/reference.tsv",
        "truth/atlas_genes.tsv",
        "truth/README.md",
        "truth/simulate.json",
    ]


TRUTH_FILES = truth_files()


def study_files(sections: Iterable[Mapping[str, str]] = SECTIONS) -> list[str]:
    """Return every file of a study with these sections, relative to the study's folder."""
    sections = list(sections)
    tissue = [f"{section['sample']}/{name}" for section in sections for name in SECTION_FILES]
    return [*tissue, *REFERENCE_FILES, *ATLAS_FILES, *truth_files(sections)]
