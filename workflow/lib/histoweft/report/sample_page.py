"""The page of one sample, a part a function; workflow/notebooks/sample.ipynb calls them from top to bottom."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histoweft import gaps
from histoweft.report import render, trace
from histoweft.report.facts import FROM_IMAGE_TITLE, PLATFORMS, chosen_stability, sample_facts
from histoweft.report.html import (
    Html,
    caption,
    caption_text,
    figure,
    joined,
    key_numbers,
    notice,
    number,
    paragraph,
    percent,
    plain,
    portable,
    portable_values,
    remark,
    section,
    slug,
    table,
)
from histoweft.report.methods import installed_versions

REPOSITORY = Path(__file__).resolve().parents[4]
_SETTINGS = ("seed", "ingest", "expression", "histology")


def write(
    inputs: Mapping[str, Any],
    captions: list[str],
    config: dict[str, Any],
    sample: str,
    *,
    notebook: str | os.PathLike,
    facts_path: str | os.PathLike,
    executed: str | os.PathLike,
    output: str | os.PathLike,
    shown: Mapping[str, Mapping[str, Any]] | None = None,
    sources: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Gather a sample's facts and make its page.

    Parameters
    ----------
    inputs
        Paths: counts, filtered, clusters, qc, stability, metrics, warnings, top_markers, and figures (a list of
        pngs, known by their stems); for a section with an image also stain, painted (the store), histology_figures
        (likewise) and, where models were scored, histology_metrics.
    captions
        The .rst files of what is shown, known by their stems.
    config
        Completed config of the study.
    sample
        Its name.
    notebook, facts_path, executed, output
        The notebook; the facts, its executed copy and the page that are written.
    shown
        What further stages show; see `stages.sections`.
    sources
        Where the inputs come from; see `trace.addresses`.
    """
    inputs = {name: path for name, path in inputs.items() if isinstance(path, list) or not gaps.of(path)}
    names = ("counts", "filtered", "clusters", "qc", "stability", "metrics", "warnings")
    facts = sample_facts(**{name: inputs[name] for name in names}, resolution=config["expression"]["resolution"],
                         stain=inputs.get("stain"))  # fmt: skip
    facts["sample"] = sample
    facts["read_as"] = read_as(inputs["counts"])
    Path(facts_path).write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    parameters = {
        "facts": facts,
        "figures": {Path(path).stem: str(path) for path in [*inputs["figures"], *inputs.get("histology_figures", [])]},
        "tables": {name: str(inputs[name]) for name in ("qc", "stability", "top_markers", "metrics")},
        "histology": {name: str(inputs.get(name) or "") for name in ("painted", "histology_metrics")},
        "shown": {stage: dict(parts) for stage, parts in (shown or {}).items()},
        "captions": {Path(path).stem: caption_text(path, sample) for path in captions},
        "traced": trace.addresses(sources or {}, Path(output).parent),
        "settings": portable_values({name: config[name] for name in _SETTINGS if name in config}),
        "versions": installed_versions(REPOSITORY / "envs"),
    }
    study = config["title"] or config["study"]
    render.write_page(
        notebook,
        executed,
        output,
        parameters,
        title=f"{sample} · {study}",
        study=study,
        up=("index.html", "← All sections"),
    )


def header(facts: dict[str, Any]) -> Html:
    """Return the head: name, and where the sample comes from."""
    labels = [
        ("patient", facts["patient"]),
        ("batch", facts["batch"]),
        ("condition", facts["condition"]),
        ("platform", PLATFORMS.get(facts["platform"], facts["platform"])),
        ("species", facts.get("species", "")),
    ]
    tags = joined(Html("<li><b>{}</b>{}</li>").format(name, value) for name, value in labels if value)
    return Html('<header><h1>{}</h1><ul class="tags">{}</ul></header>').format(facts["sample"], tags)


def warnings(facts: dict[str, Any]) -> Html:
    """Return what a reader should know first."""
    found = facts["warnings"]
    if not found:
        return notice("good", "No warnings", ["Reading, quality control and clustering had nothing to report."])
    return notice("warning", f"{len(found)} warning{'s' if len(found) > 1 else ''}", [remark(text) for text in found])


def read_as(counts: str | os.PathLike) -> dict[str, str]:
    """Return what was taken where a file left a choice: topic to words; empty where ingest noted nothing."""
    from histoweft.io import CountsFile

    with CountsFile(counts) as file:
        found = file.uns.get("histoweft", {}).get("read_as", {})
    return {str(topic): portable(str(taken)) for topic, taken in found.items()} if isinstance(found, Mapping) else {}


def how_read(facts: dict[str, Any]) -> Html:
    """Return what was taken from the files where they left a choice, nothing where they left none."""
    taken = facts.get("read_as") or {}
    if not taken:
        return Html("")
    return section("How the files were read", table(["What", "Taken"], [list(row) for row in taken.items()]))


def key_facts(facts: dict[str, Any]) -> Html:
    """Return the key numbers."""
    units = facts["unit"]
    kept, given = facts["barcodes"], facts["barcodes_in"]
    entries = [
        (f"{units.capitalize()} in", number(given), ""),
        (f"{units.capitalize()} kept", number(kept), percent(kept, given)),
        ("Genes kept", number(facts["genes"]), f"of {number(facts['genes_in'])}"),
        (f"Median genes per {units[:-1]}", number(facts["median_genes"]), ""),
        (f"Median counts per {units[:-1]}", number(facts["median_counts"]), ""),
    ]
    if facts["located"]:
        known = facts["mpp"] is not None
        entries.append(("µm per pixel", number(facts["mpp"]) if known else "unknown", ""))
    entries.append(("Clusters", number(facts["clusters"]), f"resolution {plain(facts['resolution'])}"))
    ari = chosen_stability(facts).get("ari_mean")
    if ari is not None:
        entries.append(("Stability between seeds", number(ari), "ARI, 1 is best"))
    if facts["label_ari"] is not None:
        entries.append(("Against expert labels", number(facts["label_ari"]), f"ARI, {facts['labels']} labels"))
    gathered = Html(
        '<p class="source"><span>Counted by rules ingest_counts and qc, clustered by rule leiden; gathered in '
        "<code>samples/{}/facts.json</code></span></p>"
    ).format(facts["sample"])
    return section("Key numbers", key_numbers(entries), gathered)


def _figure(name: str, alt: str, figures: dict[str, str], captions: dict[str, str], traced: Mapping[str, Any]) -> Html:
    path = figures[name]
    words = caption(captions[f"{name}_figure"])
    return figure(path, alt, words, anchor=f"figure-{name}", source=trace.line(path, traced))


def quality(
    facts: dict[str, Any],
    tables: dict[str, str],
    figures: dict[str, str],
    captions: dict[str, str],
    traced: Mapping[str, Any],
) -> Html:
    """Return what quality control removed, and where it lay."""
    picture = _figure(
        "qc",
        f"Quality control of {facts['sample']}: genes and counts of each barcode, and which barcodes were removed",
        figures,
        captions,
        traced,
    )
    rows = [
        [
            row.get("rule") or row["filter"],
            "genes" if row["axis"] == "genes" else facts["unit"],
            row["removed_alone"],
            row["removed"],
            row["remaining"],
        ]
        for row in facts["qc"]
    ]
    columns = ["Filter", "Applied to", "Would remove alone", "Removed", "Remaining"]
    return section(
        "Quality control",
        picture,
        Html("<h3>What each filter removed</h3>"),
        table(columns, rows, empty="No filter was active."),
        caption(captions["qc_table"]),
        trace.line(tables["qc"], traced),
    )


def clusters(
    facts: dict[str, Any], figures: dict[str, str], captions: dict[str, str], traced: Mapping[str, Any]
) -> Html:
    """Return the clusters on the tissue and in the UMAP."""
    place = "on the tissue and in the UMAP" if facts["located"] else "in the UMAP"
    alt = f"The {facts['clusters']} clusters of {facts['sample']} {place}"
    return section(f"Clusters {place}", _figure("clusters", alt, figures, captions, traced), anchor="clusters")


def variable_genes(
    facts: dict[str, Any], figures: dict[str, str], captions: dict[str, str], traced: Mapping[str, Any]
) -> Html:
    """Return the choice of genes and the principal components."""
    alt = f"Variable genes of {facts['sample']} and the variance that each principal component explains"
    return section("Variable genes and components", _figure("features", alt, figures, captions, traced))


def stability(
    facts: dict[str, Any],
    tables: dict[str, str],
    figures: dict[str, str],
    captions: dict[str, str],
    traced: Mapping[str, Any],
) -> Html:
    """Return how much clusters depend on resolution and seed."""
    alt = f"Agreement of Leiden runs of {facts['sample']} between seeds, for each resolution"
    columns = ["Resolution", "Clusters (median)", "Clusters (range)", "Mean ARI", "Lowest ARI", "Seeds", "Chosen"]
    rows = [
        [
            plain(row["resolution"]),
            row.get("clusters_median"),
            f"{number(row.get('clusters_min'))} to {number(row.get('clusters_max'))}",
            row.get("ari_mean"),
            row.get("ari_min"),
            row.get("seeds"),
            "in use" if row is chosen_stability(facts) else "",
        ]
        for row in facts["stability"]
    ]
    return section(
        "Stability",
        _figure("stability", alt, figures, captions, traced),
        table(columns, rows, empty="Stability was not measured (expression.stability_seeds is 1)."),
        joined([caption(captions["stability_table"]), trace.line(tables["stability"], traced)]) if rows else "",
    )


def markers(
    facts: dict[str, Any],
    tables: dict[str, str],
    figures: dict[str, str],
    captions: dict[str, str],
    traced: Mapping[str, Any],
) -> Html:
    """Return the marker genes of each cluster."""
    import pandas as pd

    from histoweft.plotting import shared_colours

    top = pd.read_csv(
        tables["top_markers"], sep="\t", dtype={"cluster": str, "gene": str}, keep_default_na=False, na_values=[""]
    )
    colours = shared_colours(facts["cluster_sizes"])
    rows, kinds = [], []
    for name, group in top.groupby("cluster", sort=False):
        size = facts["cluster_sizes"].get(name)
        label = Html('<span class="chip" style="background:{}"></span>{} <span class="quiet">({} {})</span>').format(
            colours.get(name, "#999"), name, number(size), facts["unit"]
        )
        for at, row in enumerate(group.to_dict("records")):
            gene = Html("<em>{}</em>").format(row["gene"])
            numbers = [row.get(key) for key in ("auroc", "log2_fold_change", "pct_in", "pct_out", "p_adjusted")]
            rows.append([label if at == 0 else "", gene, *numbers])
            kinds.append("group" if at == 0 else "")
    columns = ["Cluster", "Gene", "AUROC", "log2 fold change", "% inside", "% outside", "p adjusted"]
    alt = f"Expression of the top marker genes in each cluster of {facts['sample']}"
    return section(
        "Markers",
        _figure("markers", alt, figures, captions, traced),
        Html("<h3>Top markers of each cluster</h3>"),
        table(columns, rows, row_kinds=kinds, tall=len(rows) > 24, empty="No markers: there is one cluster only."),
        caption(captions["markers_table"]),
        trace.line(tables["top_markers"], traced),
    )


def histology(
    facts: dict[str, Any],
    made: Mapping[str, str],
    figures: dict[str, str],
    captions: dict[str, str],
    traced: Mapping[str, Any],
) -> Html:
    """Return the tiles, how well expression was predicted and the painted genes; nothing for a sample without image.

    Parameters
    ----------
    facts, figures, captions, traced
        As for all parts.
    made
        ``painted``: path of the store of painted genes; ``histology_metrics``: table of scores, empty without one.
    """
    found = facts["histology"]
    if not found:
        return Html("")
    name = facts["sample"]
    pictures = {
        "tiles": f"The section {name} with its tissue and tiles, and examples of tiles",
        "painted": f"Genes of {name}, measured in spots and painted onto the tissue",
        "composite": f"A few painted genes of {name} in one picture, beside the H&E",
    }
    tiles, painted, composite = (_figure(key, alt, figures, captions, traced) for key, alt in pictures.items())
    noticed = [remark(text) for text in found["warnings"]]
    return section(
        FROM_IMAGE_TITLE,
        key_numbers(_of_image(found, facts["unit"])),
        notice("warning", "The image deserves a look", noticed) if noticed else "",
        tiles,
        Html("<h3>How far to trust the maps of this section</h3>"),
        *_held_out(name, made["histology_metrics"], captions, traced),
        painted,
        composite,
        *([Html("<h3>Open the maps</h3>"), *_how_to_open(made["painted"])] if made["painted"] else []),
    )


def _of_image(found: dict[str, Any], units: str) -> list[tuple[str, str, str]]:
    tiles = found["n_tiles"]
    entries = [
        ("µm per pixel of the image", number(found["um_per_px"]), ""),
        ("Tissue", percent(found["tissue"], 1), "of the image"),
        ("Tiles kept", number(found["n_kept"]), f"of {number(tiles)}"),
        ("Blank tiles", percent(found["blank_rate"], 1), "of all"),
    ]
    if found["blurred_rate"] is None:
        entries.append(("Blurred tiles", "–", "image too coarse"))
    else:
        entries.append(("Blurred tiles", percent(found["blurred_rate"], 1), "of those with tissue"))
    if found["spots_outside"] is not None:
        entries.append((f"{units.capitalize()} off the tissue", percent(found["spots_outside"], 1), ""))
    return entries


def _held_out(sample: str, metrics: str, captions: dict[str, str], traced: Mapping[str, Any]) -> list[Html]:
    from histoweft.report.scores import image_table, read_scores

    if not metrics:
        text = "No spots were held out (histology.protocols is empty), so nothing says what the maps are worth."
        return [paragraph(text)]
    link = Html('<a href="index.html#{}">page of the study</a>').format(slug(FROM_IMAGE_TITLE))
    return [
        image_table(read_scores(metrics), sample),
        caption(captions["histology_table"]),
        trace.line(metrics, traced),
        paragraph("What the methods are, and the verdict over all sections, is on the ", link, "."),
    ]


def _how_to_open(path: str) -> list[Html]:
    lines = [
        "import spatialdata",
        "from napari_spatialdata import Interactive",
        f'sdata = spatialdata.read_zarr("{path}")',
        'genes = spatialdata.get_pyramid_levels(sdata.images["expression"], n=0)  # genes x height x width, finest',
        "Interactive(sdata).run()  # napari, the genes over the H&E",
    ]
    return [
        paragraph(
            "The store holds all painted genes, the H&E and the tissue in the same pixels and in micrometres "
            "(OME-Zarr, laid out for SpatialData). With the packages spatialdata and napari-spatialdata, in the folder "
            "in which the workflow ran:"
        ),
        Html("<pre><code>{}</code></pre>").format("\n".join(lines)),
    ]


def scores(tables: dict[str, str], captions: dict[str, str], traced: Mapping[str, Any]) -> Html:
    """Return every score of the sample."""
    from histoweft.report.scores import evidence, read_scores

    frame = read_scores(tables["metrics"])
    if frame.empty:
        quiet = "Nothing of this sample could be scored: it came without expert labels."
        return section("Scores", paragraph(quiet, kind="quiet"))
    words = caption(captions["metrics_table"])
    return section("Scores", evidence(frame), words, trace.line(tables["metrics"], traced))


def settings_and_versions(settings: dict[str, Any], versions: dict[str, str]) -> Html:
    """Return the settings in use and the software."""
    import yaml

    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    pairs = joined(Html("<dt>{}</dt><dd>{}</dd>").format(name, version) for name, version in versions.items())
    return section(
        "Settings and versions",
        Html("<pre><code>{}</code></pre>").format(text),
        Html('<dl class="pairs">{}</dl>').format(pairs),
    )
