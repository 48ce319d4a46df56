"""The Methods paragraph of a study, from its own settings and the versions that ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histoweft.graph import EXACT_CELLS
from histoweft.report import further_methods
from histoweft.report.facts import PLATFORMS
from histoweft.report.html import plain

REFERENCES = {
    "Spearman, 1910": (
        "Spearman C. Correlation calculated from faulty data. British Journal of Psychology 3:271 (1910)",
        "10.1111/j.2044-8295.1910.tb00206.x",
    ),
    "Hubert and Arabie, 1985": (
        "Hubert L, Arabie P. Comparing partitions. Journal of Classification 2:193 (1985)",
        "10.1007/BF01908075",
    ),
    "Künsch, 1989": (
        "Künsch HR. The jackknife and the bootstrap for general stationary observations. Ann Statist 17:1217 (1989)",
        "10.1214/aos/1176347265",
    ),
    "Polyak and Juditsky, 1992": (
        "Polyak BT, Juditsky AB. Acceleration of stochastic approximation by averaging. SIAM J Control Optim 30:838 "
        "(1992)",
        "10.1137/0330046",
    ),
    "Benjamini and Hochberg, 1995": (
        "Benjamini Y, Hochberg Y. Controlling the false discovery rate. J R Stat Soc B 57:289 (1995)",
        "10.1111/j.2517-6161.1995.tb02031.x",
    ),
    "Wang et al., 2004": (
        "Wang Z, Bovik AC, Sheikh HR, Simoncelli EP. Image quality assessment: from error visibility to structural "
        "similarity. IEEE Trans Image Process 13:600 (2004)",
        "10.1109/TIP.2003.819861",
    ),
    "Macenko et al., 2009": (
        "Macenko M et al. A method for normalizing histology slides for quantitative analysis. ISBI 2009:1107",
        "10.1109/ISBI.2009.5193250",
    ),
    "Dong et al., 2011": (
        "Dong W, Moses C, Li K. Efficient k-nearest neighbor graph construction for generic similarity measures. "
        "WWW 2011:577",
        "10.1145/1963405.1963487",
    ),
    "Satija et al., 2015": (
        "Satija R et al. Spatial reconstruction of single-cell gene expression data. Nat Biotechnol 33:495 (2015)",
        "10.1038/nbt.3192",
    ),
    "McCarthy et al., 2017": (
        "McCarthy DJ et al. Scater: pre-processing, quality control, normalization and visualization of single-cell "
        "RNA-seq data in R. Bioinformatics 33:1179 (2017)",
        "10.1093/bioinformatics/btw777",
    ),
    "Lopez et al., 2018": (
        "Lopez R et al. Deep generative modeling for single-cell transcriptomics. Nat Methods 15:1053 (2018)",
        "10.1038/s41592-018-0229-2",
    ),
    "McInnes et al., 2018": (
        "McInnes L et al. UMAP: Uniform Manifold Approximation and Projection. JOSS 3:861 (2018)",
        "10.21105/joss.00861",
    ),
    "Wolf et al., 2018": (
        "Wolf FA, Angerer P, Theis FJ. SCANPY: large-scale single-cell gene expression data analysis. "
        "Genome Biol 19:15 (2018)",
        "10.1186/s13059-017-1382-0",
    ),
    "Korsunsky et al., 2019": (
        "Korsunsky I et al. Fast, sensitive and accurate integration of single-cell data with Harmony. "
        "Nat Methods 16:1289 (2019)",
        "10.1038/s41592-019-0619-0",
    ),
    "Traag et al., 2019": (
        "Traag VA, Waltman L, van Eck NJ. From Louvain to Leiden: guaranteeing well-connected communities. "
        "Sci Rep 9:5233 (2019)",
        "10.1038/s41598-019-41695-z",
    ),
    "Stuart et al., 2019": (
        "Stuart T et al. Comprehensive integration of single-cell data. Cell 177:1888 (2019)",
        "10.1016/j.cell.2019.05.031",
    ),
    "Wolock et al., 2019": (
        "Wolock SL, Lopez R, Klein AM. Scrublet: computational identification of cell doublets in single-cell "
        "transcriptomic data. Cell Syst 8:281 (2019)",
        "10.1016/j.cels.2018.11.005",
    ),
    "Lause et al., 2021": (
        "Lause J, Berens P, Kobak D. Analytic Pearson residuals for normalization of single-cell RNA-seq UMI data. "
        "Genome Biol 22:258 (2021)",
        "10.1186/s13059-021-02451-7",
    ),
    "Mölder et al., 2021": (
        "Mölder F et al. Sustainable data analysis with Snakemake. F1000Research 10:33 (2021)",
        "10.12688/f1000research.29032.2",
    ),
    "Luecken et al., 2022": (
        "Luecken MD et al. Benchmarking atlas-level data integration in single-cell genomics. Nat Methods 19:41 (2022)",
        "10.1038/s41592-021-01336-8",
    ),
    "Guo et al., 2017": (
        "Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. ICML 2017",
        "10.48550/arXiv.1706.04599",
    ),
    "Efremova et al., 2020": (
        "Efremova M et al. CellPhoneDB: inferring cell-cell communication from combined expression of multi-subunit "
        "ligand-receptor complexes. Nat Protoc 15:1484 (2020)",
        "10.1038/s41596-020-0292-x",
    ),
    "Zhu et al., 2021": (
        "Zhu J, Sun S, Zhou X. SPARK-X: non-parametric modeling enables scalable and robust detection of spatial "
        "expression patterns. Genome Biol 22:184 (2021)",
        "10.1186/s13059-021-02404-0",
    ),
    "Cable et al., 2022": (
        "Cable DM et al. Robust decomposition of cell type mixtures in spatial transcriptomics. Nat Biotechnol 40:517 "
        "(2022)",
        "10.1038/s41587-021-00830-w",
    ),
    "Virshup et al., 2024": (
        "Virshup I et al. anndata: access and store annotated data matrices. JOSS 9:4371 (2024)",
        "10.21105/joss.04371",
    ),
}
"""Author and year as cited -> reference and DOI."""

PACKAGES = {
    "host": ["snakemake"],
    "expression": ["numpy", "scipy", "pandas", "scikit-learn", "igraph", "umap-learn", "pynndescent", "scanpy"],
    "integration": ["harmonypy", "scvi-tools", "torch", "scib-metrics"],
    "histology": ["torch", "pytorch-lightning", "timm", "zarr"],
    "report": ["anndata", "h5py", "matplotlib", "tifffile", "papermill", "nbconvert"],
}
"""Packages whose versions a study states, under the environment that runs them."""


def installed_versions(environments: Path | None = None) -> dict[str, str]:
    """Return the version of each package that a study's steps use.

    Parameters
    ----------
    environments
        Folder with the ``<environment>.lock.txt`` files.

    Returns
    -------
    dict
        Package to version: the installed one where this interpreter has the package, else the one pinned for the
        environment of its step (``--software-deployment-method conda`` gives every step its own).
    """
    from histoweft.provenance import versions

    found = {}
    for environment, packages in PACKAGES.items():
        here = versions(packages)
        pinned = _pins(environments / f"{environment}.lock.txt") if environments else {}
        for package in packages:
            if package in here:
                found[package] = here[package]
            elif package in pinned:
                found[package] = pinned[package]
    return found


def _pins(lock: Path) -> dict[str, str]:
    """Return package to version of a lock file."""
    if not lock.is_file():
        return {}
    lines = (line.split(";")[0].split("\\")[0].strip() for line in lock.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line and not line.startswith(("#", "--")))
    return {name.strip().lower(): version.strip() for name, _, version in pairs}


@dataclass
class _Text:
    """Sentences, and what they cite, in order."""

    versions: dict[str, str]
    kept: int
    sentences: list[str] = field(default_factory=list)
    cited: list[str] = field(default_factory=list)

    def cite(self, *names: str) -> str:
        for name in names:
            if name not in self.cited:
                self.cited.append(name)
        return "; ".join(names)

    def tool(self, package: str, name: str = "") -> str:
        """Return a package with its version."""
        version = self.versions.get(package)
        return f"{name or package} {version}" if version else name or package

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


def methods(
    config: dict[str, Any],
    samples: Sequence[dict[str, Any]],
    versions: dict[str, str],
    *,
    registered: bool = False,
    deconvolved: bool = False,
) -> tuple[str, list[str]]:
    """Write the Methods paragraph.

    Parameters
    ----------
    config
        Completed config of the study.
    samples
        Facts of each sample (`histoweft.report.facts.sample_facts`).
    versions
        Package to version.
    registered
        Whether serial sections were laid onto one another.
    deconvolved
        Whether spots were.

    Returns
    -------
    paragraph
        Plain text; every number in it is a setting or a count of this run.
    cited
        Keys of `REFERENCES`, in the order of their first mention.
    """
    text = _Text(versions, kept=sum(facts["barcodes"] for facts in samples))
    if samples:
        _sections(text, config, samples)
    if len(samples) > 1:
        _integration(text, config["integration"], samples)
    imaged = [facts for facts in samples if facts.get("histology")]
    if imaged:
        _histology(text, config["histology"], imaged, registered)
    if config["atlas"]["input"]:
        further_methods.atlas(text, config["atlas"])
    if samples and config["annotation"]["reference"]:
        further_methods.annotation(text, config["annotation"], deconvolved)
    placed = sum(bool(facts.get("located")) for facts in samples)
    if placed:
        further_methods.space(text, config["space"], placed)
    text.say(f"All random steps used the seed {config['seed']}.")
    names = ("numpy", "scipy", "pandas", "matplotlib")
    tools = [text.tool(name) for name in names if name in versions]
    if tools:
        text.say(f"Further software: {', '.join(tools)}.")
    return " ".join(text.sentences), text.cited


def _sections(text: _Text, config: dict[str, Any], samples: Sequence[dict[str, Any]]) -> None:
    """Say what was done to every section."""
    units = _units(samples)
    _opening(text, config, samples, units)
    _filters(text, config["expression"]["qc"], units)
    _features(text, config["expression"]["features"], samples, units)
    _graph(text, config["expression"], samples, units)
    _markers(text)


def _units(samples: Sequence[dict[str, Any]]) -> str:
    kinds = {facts["unit"] for facts in samples}
    return kinds.pop() if len(kinds) == 1 else "spots or cells"


def _one(units: str) -> str:
    return {"spots": "spot", "cells": "cell", "bins": "bin"}.get(units, "spot or cell")


def _count(n: int) -> str:
    """Return a small number in words, as a sentence may begin with it."""
    words = "no one two three four five six seven eight nine ten eleven twelve".split()
    return words[n] if n < len(words) else f"{n:,}"


def _opening(text: _Text, config: dict[str, Any], samples: Sequence[dict[str, Any]], units: str) -> None:
    platforms = [PLATFORMS.get(facts["platform"], facts["platform"]) for facts in samples]
    kinds = ", ".join(dict.fromkeys(platforms))
    patients = {facts["patient"] for facts in samples}
    n, p = len(samples), len(patients)
    given = sum(facts["barcodes_in"] for facts in samples)
    of = f" of {_count(p)} subjects" if 1 < p < n else ""
    text.say(
        f"{_count(n).capitalize()} section{'s' if n > 1 else ''}{of} ({kinds}; {given:,} {units}) "
        f"{'were' if n > 1 else 'was'} analysed with Histoweft, a workflow in {text.tool('snakemake', 'Snakemake')} "
        f"({text.cite('Mölder et al., 2021')}), on counts kept as {text.tool('anndata', 'AnnData')} objects "
        f"({text.cite('Virshup et al., 2024')})."
    )
    if config["ingest"]["counts"] in ("round", "as_is"):
        how = "rounded to whole numbers" if config["ingest"]["counts"] == "round" else "used as they were"
        text.say(f"Values that were not whole numbers were {how}.")
    if all(facts["platform"] != "scrna" for facts in samples) and any(facts["image"] for facts in samples):
        text.say(f"Images were reduced to {plain(config['ingest']['working_mpp'])} µm per pixel, where finer.")


def _filters(text: _Text, qc: dict[str, Any], units: str) -> None:
    one = _one(units)
    rules = []
    if qc["min_genes"]:
        rules.append(f"fewer than {qc['min_genes']:,} detected genes")
    if qc["min_counts"]:
        rules.append(f"fewer than {qc['min_counts']:,} counts")
    if qc["max_counts"] is not None:
        rules.append(f"more than {qc['max_counts']:,} counts")
    if qc["max_genes"] is not None:
        rules.append(f"more than {qc['max_genes']:,} detected genes")
    if qc["max_pct_mito"] is not None:
        rules.append(f"more than {plain(qc['max_pct_mito'])} % mitochondrial counts")
    if rules:
        last = f"{', '.join(rules[:-1])} or {rules[-1]}" if len(rules) > 1 else rules[0]
        text.say(f"{units[0].upper()}{units[1:]} with {last} were removed.")
    if qc["mads"] is not None:
        text.say(
            f"{units[0].upper()}{units[1:]} whose log counts or log number of genes lay more than {plain(qc['mads'])} "
            "median absolute deviations below the median of the section, or whose mitochondrial share lay as far above "
            f"it, were removed as well ({text.cite('McCarthy et al., 2017')})."
        )
    if qc["doublets"] != "none":
        what = "removed" if qc["doublets"] == "remove" else "flagged and kept"
        text.say(
            f"Doublets called by Scrublet ({text.cite('Wolock et al., 2019')}), as implemented in "
            f"{text.tool('scanpy', 'Scanpy')} ({text.cite('Wolf et al., 2018')}), were {what}."
        )
    if not rules and qc["mads"] is None and qc["doublets"] != "remove":
        text.say(f"No {one} was filtered out.")
    genes = f"Genes found in fewer than {max(qc['min_spots'], 1):,} of the remaining {units} were removed"
    text.say(f"{genes}; {text.kept:,} {units} were left.")


def _features(text: _Text, features: dict[str, Any], samples: Sequence[dict[str, Any]], units: str) -> None:
    rank = {
        "seurat": ("their dispersion among genes of similar mean", "Satija et al., 2015"),
        "seurat_v3": ("the variance of their standardised counts", "Stuart et al., 2019"),
        "pearson": ("the variance of their analytic Pearson residuals", "Lause et al., 2021"),
    }
    how, source = rank[features["flavour"]]
    scaled = "scaled to unit variance" if features["scale"] else "not scaled"
    text.say(
        f"Counts of each {_one(units)} were scaled to a sum of {plain(features['target_sum'])} and transformed by "
        "log(1 + x)."
    )
    genes = [facts["genes"] for facts in samples]
    if max(genes) <= features["n_top"]:
        chosen = f"All genes were used, as no section had more than {features['n_top']:,}"
    else:
        fewer = " (all genes where a section had fewer)" if min(genes) < features["n_top"] else ""
        chosen = f"The {features['n_top']:,} most variable genes of each section{fewer} were chosen by {how} "
        chosen += f"({text.cite(source)})"
    text.say(
        f"{chosen}, and {features['n_components']} principal components were computed from their log "
        f"values, centred and {scaled}."
    )


def _graph(text: _Text, expression: dict[str, Any], samples: Sequence[dict[str, Any]], units: str) -> None:
    one = _one(units)
    large = [facts for facts in samples if facts["barcodes"] > EXACT_CELLS]
    search = ""
    if large:
        search = f" (approximated by {text.tool('pynndescent')}, {text.cite('Dong et al., 2011')}, in sections of more "
        search += f"than {EXACT_CELLS:,} {units})"
    text.say(
        f"A graph of the {expression['neighbours']} nearest neighbours of each {one}, itself included, in these "
        f"components{search} was weighted as in UMAP ({text.cite('McInnes et al., 2018')})."
    )
    several = len(expression["resolutions"]) > 1
    others = ", ".join(plain(r) for r in expression["resolutions"] if r != expression["resolution"])
    also = f"; resolutions {others} were computed for comparison" if several else ""
    text.say(
        f"Clusters were found in it by the Leiden algorithm ({text.cite('Traag et al., 2019')}; "
        f"{text.tool('igraph', 'igraph')}) maximising modularity at resolution {plain(expression['resolution'])}{also}."
    )
    if expression["stability_seeds"] > 1:
        text.say(
            f"Their stability was measured as the adjusted Rand index ({text.cite('Hubert and Arabie, 1985')}) between "
            f"{expression['stability_seeds']} runs that differed only in their seed."
        )
    text.say(
        f"UMAP ({text.tool('umap-learn')}; minimum distance {plain(expression['umap_min_dist'])}) served display only."
    )


def _markers(text: _Text) -> None:
    text.say(
        "Marker genes of each cluster against all others were ranked by the Wilcoxon rank-sum test on the log values, "
        "reported with the area under the ROC curve and the log2 fold change; p values were corrected for "
        f"multiple testing ({text.cite('Benjamini and Hochberg, 1995')}) and, because the clusters come from the "
        "same data, rank genes rather than test hypotheses."
    )


def _integration(text: _Text, integration: dict[str, Any], samples: Sequence[dict[str, Any]]) -> None:
    names = {
        "none": "their joint principal components as they are (no integration, the floor)",
        "harmony": f"Harmony ({text.tool('harmonypy')}; {text.cite('Korsunsky et al., 2019')})"
        if "harmony" in integration["methods"]
        else "",
        "scvi": f"scVI ({text.tool('scvi-tools')}; {text.cite('Lopez et al., 2018')})"
        if "scvi" in integration["methods"]
        else "",
    }
    used = [names.get(method, method) for method in integration["methods"]]
    listed = f"{', '.join(used[:-1])} and {used[-1]}" if len(used) > 1 else used[0]
    text.say(
        f"The {_count(len(samples))} sections were joined on their shared genes, with at most "
        f"{integration['n_top']:,} of them, those of the best median rank of variability over sections, and "
        f"{integration['n_components']} components, "
        f"by {listed}, with the column “{integration['batch']}” as batch; joint clusters used Leiden at resolution "
        f"{plain(integration['resolution'])}."
    )
    text.say(
        f"Batch mixing and conservation of structure were scored on the same {_units(samples)} with "
        f"{text.tool('scib-metrics')} ({text.cite('Luecken et al., 2022')}; total = 0.4 mixing + 0.6 conservation)."
    )


def _histology(text: _Text, histology: dict[str, Any], samples: Sequence[dict[str, Any]], registered: bool) -> None:
    """Say how expression was predicted from the images of `samples`, and how that was judged."""
    tiles, n = histology["tiles"], len(samples)
    text.say(
        f"Gene expression was predicted from the H&E image{'s' if n > 1 else ''} of {_count(n)} "
        f"section{'s' if n > 1 else ''}: the tissue was told from the slide, its haematoxylin and eosin were separated "
        f"({text.cite('Macenko et al., 2009')}), and tiles of {plain(tiles['tile_um'])} µm, overlapping by "
        f"{plain(tiles['overlap_um'])} µm, counted as blank below {100 * tiles['min_tissue']:.3g} % tissue and as "
        f"blurred below {100 * tiles['blur']:.3g} % of the section's median focus."
    )
    _image_model(text, histology, samples)
    if _protocols(text, histology, samples):
        if registered:
            _registration(text, histology["register"])
        _scoring(text, histology["all_share"])
    painted = f"The genes {', '.join(histology['paint'])}" if histology["paint"] else "The sections' marker genes"
    text.say(f"{painted} were painted onto every pixel of the tissue by models trained on all {_units(samples)}.")


def _image_model(text: _Text, histology: dict[str, Any], samples: Sequence[dict[str, Any]]) -> None:
    network, units, one = histology["network"], _units(samples), _one(_units(samples))
    encoder = histology["encoder"]
    added = ""
    if encoder == "pretrained":
        pretrain = histology["pretrain"]
        text.say(
            "A convolutional encoder was first trained to give back stain-normalised crops "
            f"of {pretrain['crop']} pixels from the tiles of all sections (structural similarity, "
            f"{text.cite('Wang et al., 2004')}, and absolute differences; at most {pretrain['epochs']} epochs)."
        )
        added = ", the channels of this encoder"
    elif encoder != "none":
        name = encoder.removeprefix("timm:").partition("@")[0]
        added = f", the channels of the pretrained encoder {name} ({text.tool('timm')})"
    text.say(
        f"Optical and stain densities, texture at three scales{added} and the distance to the tissue's edge were "
        f"averaged, over tissue only, onto a grid of at best one sixteenth of a {one}'s size and onto seven grids each "
        "twice as coarse as the one before, so that every pixel is described by its surroundings at all scales."
    )
    size = histology["footprint_um"]
    sizes = {facts.get("spot_diameter_um") for facts in samples}
    if size is None and len(sizes) == 1 and None not in sizes:
        size = sizes.pop()
    of = f" of {plain(size)} µm" if size else ""
    text.say(
        f"The expression of a {one}, log(1 + x) of its counts scaled to the median total of the {units} trained on, "
        f"compressed to 40 principal components, was predicted as the mean over its footprint{of} of what "
        f"{network['members']} multilayer perceptrons ({network['layers']} hidden layers of {network['hidden']} units, "
        f"dropout {plain(network['dropout'])}; AdamW, at most {network['steps']} steps of {network['batch']} {units}, "
        f"a running mean of the weights, {text.cite('Polyak and Juditsky, 1992')}, stopped where the correlation on a "
        "contiguous part of the training data that the perceptron did not see rose no further; "
        f"{text.tool('torch', 'PyTorch')}, {text.tool('pytorch-lightning', 'Lightning')}) and, with a weight of "
        f"{plain(network['ridge_share'])}, a ridge regression give for its pixels."
    )
    if histology["tune"]:
        tuned = ", ".join(f"{name} ({', '.join(map(plain, values))})" for name, values in histology["tune"].items())
        text.say(f"Of these settings, {tuned} were chosen on inner folds of the training {units}.")
    if "autoencoder" in (histology["model"], *histology["compare"]):
        text.say(
            "For comparison, a four-layer convolutional autoencoder with gene channels was trained to give back the "
            f"image (structural similarity, {text.cite('Wang et al., 2004')}) and then the image and the genes, "
            f"at most {histology['autoencoder_epochs']} epochs."
        )


def _protocols(text: _Text, histology: dict[str, Any], samples: Sequence[dict[str, Any]]) -> bool:
    """Say what was held out; return whether anything was."""
    units, folds = _units(samples), histology["folds"]
    patients = {facts["patient"] for facts in samples}
    by_patient = 1 < len(patients) < len(samples)
    groups, what = (len(patients), "patient") if by_patient else (len(samples), "section")
    said = []
    for protocol in histology["protocols"]:
        if protocol == "across" and groups > 1:
            said.append(f"every {what} in turn" if groups <= folds else f"the {what}s in {_count(folds)} groups")
        elif protocol == "block":
            said.append(f"each of {_count(folds)} contiguous blocks of a section, trained on the rest of it")
            if histology["buffer_spots"]:
                width = f"{plain(histology['buffer_spots'])} times the distance between neighbouring {units}"
                said[-1] += f" but for what lay nearer to the block than {width}"
        elif protocol == "random":
            said.append(f"{units} at random, which leaks and served only to show by how much")
    if said:
        listed = "; ".join(f"({'abc'[at]}) {what}" for at, what in enumerate(said)) if len(said) > 1 else said[0]
        text.say(f"Models were judged on {units} they had not seen, holding out {listed}.")
    return bool(said)


def _registration(text: _Text, register: str) -> None:
    which = "of the study" if register == "study" else "of the same patient"
    text.say(
        f"Serial sections {which} were laid onto one another by their image features alone (a rotation, where needed a "
        "reflection, and an affine refinement), so that a second model could start from what the other sections "
        "measured at the registered position."
    )


def _scoring(text: _Text, all_share: float) -> None:
    text.say(
        "Pearson's r of each gene was computed inside each held-out section or block and averaged, never pooled, over "
        "the 50 genes of largest variance of analytic Pearson residuals "
        f"({text.cite('Lause et al., 2021')}), over markers of k-means clusters, and over all genes found in at least "
        f"{100 * all_share:.3g} % of the training data, each set chosen on training data; also after the "
        "logarithm of the total count was regressed out of both sides, with the squared error as a share of that of "
        "the training mean, and with the share of genes above the 95 % point of r under permutation."
    )
    text.say(
        "Beside the models stand, on the same folds, the training mean, the total count (an oracle), the nearest "
        "training data by position, ridge regressions on colour and texture with and without their surroundings, "
        "and, as the bar, the mean of a ridge regression, a perceptron and boosted trees on the same features."
    )
    text.say(
        "The ceiling is the square root of the reliability of the measured expression, from halving the counts "
        f"binomially and stepping up to full depth ({text.cite('Spearman, 1910')})."
    )
    text.say(
        "Intervals of 95 % come from a bootstrap over genes and folds; those of differences between methods from a "
        f"bootstrap of contiguous patches ({text.cite('Künsch, 1989')}), the same for both."
    )
