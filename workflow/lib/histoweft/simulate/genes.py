"""The gene panel: which genes are planted, for what, and how much of each a cell type makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELL_TYPES = (
    "tumour",
    "fibroblast",
    "smooth_muscle",
    "endothelial",
    "t_cell",
    "b_cell",
    "macrophage",
    "mast",
)
#: Mean RNA content relative to a fibroblast.
CELL_SIZE = np.array([1.5, 1.0, 1.0, 0.8, 0.6, 0.6, 1.1, 0.9])
#: The type that is rare in the tissue and absent from the reference.
RARE_TYPE = "mast"

MARKERS = {
    "tumour": "EPCAM KRT8 KRT18 KRT19 CDH1 CLDN3 CLDN4 ELF3 TACSTD2 CEACAM5 CEACAM6 S100P MUC1 TSPAN8",
    "fibroblast": "COL1A1 COL1A2 COL3A1 DCN LUM PDGFRA FAP POSTN FBLN1 SFRP2 MMP2 THY1 C1S COL6A3",
    "smooth_muscle": "ACTA2 MYH11 DES CNN1 TAGLN MYLK ACTG2 SYNPO2 LMOD1 SMTN CALD1 PLN",
    "endothelial": "PECAM1 VWF CDH5 CLDN5 ENG KDR EMCN PLVAP EGFL7 ESAM TIE1 RAMP2",
    "t_cell": "CD3D CD3E CD3G CD2 CD8A CD8B IL7R TRAC GZMA NKG7 CCL5 LCK",
    "b_cell": "MS4A1 CD79A CD79B CD19 BANK1 PAX5 CD22 VPREB3 FCRLA TCL1A BLK CD37",
    "macrophage": "CD68 LYZ CD163 C1QA C1QB C1QC CSF1R AIF1 MS4A7 FCER1G TYROBP MRC1",
    "mast": "TPSAB1 TPSB2 CPA3 HDC KIT MS4A2 HPGDS GATA2 SLC18A2 CMA1",
}
MITOCHONDRIAL = "MT-CO1 MT-CO2 MT-CO3 MT-ND1 MT-ND2 MT-ND3 MT-ND4 MT-ND4L MT-ND5 MT-ND6 MT-ATP6 MT-ATP8 MT-CYB"
PROGRAMMES = {
    "proliferation": "MKI67 TOP2A PCNA MCM2 MCM5 MCM6 CCNB1 CDK1 BIRC5 TYMS RRM2 UBE2C AURKB CENPF HMGB2",
    # antioxidant defence and GPX4 (Hangauer 2017), fatty-acid oxidation (Oren 2021), diapause-like arrest
    # (Rehman 2021, Dhimolea 2021), KDM5A (Sharma 2010)
    "persister": (
        "GPX4 NQO1 GCLM SLC7A11 TXNRD1 SOD2 CAT PRDX1 HMOX1 FTH1 CPT1A CPT2 ACADM ACADVL HADHA ACAA2 ETFA "
        "SLC25A20 PDK4 CDKN1B FOXO3 TXNIP KLF4 KDM5A KDM5B"
    ),
    "progenitor": "LGR5 ASCL2 OLFM4 SMOC2 RGMB AXIN2 EPHB2 SOX9 PROM1 TNFRSF19",
    "mature": "KRT20 CEACAM7 PHGR1 CDH17 LGALS4 VIL1 TMIGD1 PLAC8 MS4A12 SELENBP1",
    "absorptive": "FABP1 CA1 CA2 SLC26A3 AQP8 ALPI GUCA2A SLC26A2 ANPEP CA4",
    "secretory": "MUC2 SPINK4 FCGBP CLCA1 ATOH1 REG4 AGR3 ZG16 ITLN1 SPDEF",
}
#: ligand, receptor, sender, receiver, where it is raised ("" = nowhere beyond the cell type's own level)
INTERACTIONS = (
    ("CXCL12", "CXCR4", "fibroblast", "t_cell", "immune_stroma_border"),
    ("GAS6", "AXL", "macrophage", "tumour", "persister_niche"),
    ("CCL19", "CCR7", "fibroblast", "b_cell", ""),
    ("DLL4", "NOTCH3", "endothelial", "smooth_muscle", ""),
    ("CCL2", "CCR2", "smooth_muscle", "macrophage", ""),
)
HOUSEKEEPING = (
    "ACTB GAPDH B2M EEF1A1 TPT1 UBC PPIA TMSB4X RPLP0 RPLP1 RPL3 RPL5 RPL7 RPL8 RPL10 RPL13 RPL19 RPL32 RPS2 "
    "RPS3 RPS4X RPS6 RPS8 RPS12 RPS18 RPS27 EEF2 FAU NACA UBA52"
)


@dataclass(frozen=True)
class Genes:
    """The panel in the order of the matrix columns.

    Parameters
    ----------
    symbol, gene_id, role, group
        One string a gene. `role` is ``marker``, ``mitochondrial``, ``proliferation``, ``persister``, ``gradient``,
        ``ligand``, ``receptor``, ``housekeeping`` or ``background``; `group` says which cell type, programme or
        pair.
    profile
        Mean counts of a cell of each type in arbitrary units, n_types x n_genes.
    """

    symbol: np.ndarray
    gene_id: np.ndarray
    role: np.ndarray
    group: np.ndarray
    profile: np.ndarray

    def __len__(self) -> int:
        return len(self.symbol)

    def where(self, *symbols: str) -> np.ndarray:
        """Return the columns of these symbols; KeyError when one is not in the panel."""
        column = {name: i for i, name in enumerate(self.symbol)}
        return np.array([column[name] for name in symbols])

    def members(self, group: str) -> np.ndarray:
        """Return the columns of a programme or of a cell type's markers."""
        return np.flatnonzero((self.group == group) & ~np.isin(self.role, ("ligand", "receptor")))


def planted() -> list[tuple[str, str, str]]:
    """Return (symbol, role, group) of every gene that is not background."""
    rows = [(gene, "marker", kind) for kind, names in MARKERS.items() for gene in names.split()]
    rows += [(gene, "mitochondrial", "mitochondrial") for gene in MITOCHONDRIAL.split()]
    for programme, names in PROGRAMMES.items():
        role = programme if programme in ("proliferation", "persister") else "gradient"
        rows += [(gene, role, programme) for gene in names.split()]
    for ligand, receptor, *_ in INTERACTIONS:
        rows += [(ligand, "ligand", f"{ligand}-{receptor}"), (receptor, "receptor", f"{ligand}-{receptor}")]
    rows += [(gene, "housekeeping", "housekeeping") for gene in HOUSEKEEPING.split()]
    return rows


def draw_genes(rng: np.random.Generator, n_genes: int) -> Genes:
    """Draw the panel: all planted genes and as much background as fills it to `n_genes`.

    Background genes carry most of the counts; a third of them differ moderately between cell types, as in real tissue.
    """
    rows = planted()
    n_background = n_genes - len(rows)
    rows += [(f"SIM{i:04d}", "background", "background") for i in range(1, n_background + 1)]
    symbol, role, group = (np.array(column) for column in zip(*rows))
    gene_id = np.array([f"ENSG9{i:010d}" for i in range(1, n_genes + 1)])
    profile = np.zeros((len(CELL_TYPES), n_genes))

    background = role == "background"
    level = rng.lognormal(0.0, 1.1, n_background)
    between = np.where(rng.random(n_background) < 0.33, 0.45, 0.05)
    profile[:, background] = level * np.exp(between * rng.standard_normal((len(CELL_TYPES), n_background)))

    for i, kind in enumerate(CELL_TYPES):
        own = np.flatnonzero((role == "marker") & (group == kind))
        level = rng.lognormal(1.35, 0.5, len(own))
        # ambient RNA and weak expression elsewhere: a marker is never a perfect switch
        profile[:, own] = level * rng.uniform(0.04, 0.12, (len(CELL_TYPES), len(own)))
        profile[i, own] = level
    _set_common(rng, profile, role, group)
    _set_programmes(rng, profile, role, group)
    _set_pairs(profile, symbol)
    order = rng.permutation(n_genes)  # so that no stage can lean on the order of the columns
    return Genes(symbol[order], gene_id[order], role[order], group[order], profile[:, order])


def _set_common(rng: np.random.Generator, profile: np.ndarray, role: np.ndarray, group: np.ndarray) -> None:
    """Fill in the genes every cell makes: about 7 % mitochondrial and 15 % housekeeping."""
    background = profile[:, role == "background"].sum(1).mean()
    for name, share in (("mitochondrial", 0.09), ("housekeeping", 0.18)):
        own = np.flatnonzero(group == name)
        level = rng.dirichlet(np.full(len(own), 4.0)) * share * max(background, 500.0)
        profile[:, own] = level * np.exp(0.08 * rng.standard_normal((len(CELL_TYPES), len(own))))


def _set_programmes(rng: np.random.Generator, profile: np.ndarray, role: np.ndarray, group: np.ndarray) -> None:
    """Fill in the resting level of the programmes; states of single cells multiply it later."""
    tumour = CELL_TYPES.index("tumour")
    for programme in PROGRAMMES:
        own = np.flatnonzero((group == programme) & (role != "ligand") & (role != "receptor"))
        level = rng.lognormal(0.0, 0.35, len(own))
        if programme == "persister":  # housekeeping-like genes: every cell makes some
            profile[:, own] = 0.8 * level * rng.uniform(0.7, 1.1, (len(CELL_TYPES), len(own)))
        elif programme == "proliferation":
            profile[:, own] = 0.25 * level
            profile[CELL_TYPES.index("b_cell"), own] = 0.5 * level
        else:
            profile[:, own] = 0.03 * level
            profile[tumour, own] = 0.35 * level


def _set_pairs(profile: np.ndarray, symbol: np.ndarray) -> None:
    """Give ligands and receptors their resting level in sender and receiver."""
    for ligand, receptor, sender, receiver, _ in INTERACTIONS:
        for gene, kind in ((ligand, sender), (receptor, receiver)):
            column = np.flatnonzero(symbol == gene)
            profile[:, column] = 0.12
            profile[CELL_TYPES.index(kind), column] = 1.2
