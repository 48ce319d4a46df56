"""The page of a study, a part a function; workflow/notebooks/study.ipynb calls them from top to bottom."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from histoweft import failures, gaps
from histoweft.report import render, run_record, stages, trace
from histoweft.report.facts import FROM_IMAGE_TITLE, PLATFORMS, chosen_stability
from histoweft.report.html import (
    Html,
    caption,
    caption_text,
    figure,
    folded,
    joined,
    missing,
    notice,
    number,
    paragraph,
    percent,
    plain,
    portable,
    portable_values,
    remark,
    section,
    table,
    thumbnail,
)
from histoweft.report.methods import REFERENCES, installed_versions, methods

REPOSITORY = Path(__file__).resolve().parents[4]
"""Folder of the workflow: lock files and the git commit are read there."""

COMMAND_VARIABLE = "HISTOWEFT_COMMAND"
"""Environment variable in which the Snakefile leaves the command that was typed."""

MOST_WARNINGS = 8
"""Warnings that are open on the page; the others unfold."""

MOST_NAMES = 6
"""Samples that are named before one warning."""

_INTEGRATION_ALT = {
    "scores": "Batch mixing, conservation and total score of each integration method, doing nothing first",
    "umaps": "UMAP of all sections before and after integration, coloured by section and by joint cluster",
    "section_effect": "How much the sections differ before and after integration",
}

_HISTOLOGY_FIGURES = {
    "scores": ("histology_scores", "Held-out correlation of each method, floors, bar and ceiling beside the models"),
    "overfit": ("overfit_figure", "Correlation on training spots and on held-out spots, side by side"),
    "encoder_reconstruction": ("reconstruction_figure", "A section and what the encoder gives back of it"),
    "encoder_training": ("pretraining_figure", "Course of the encoder's pretraining"),
    "autoencoder_reconstruction": ("reconstruction_figure", "A section and what the autoencoder gives back of it"),
    "autoencoder_training": ("pretraining_figure", "Course of the autoencoder's pretraining"),
}
"""Stem of the picture -> caption, and what it shows for those who cannot see it."""

_HELD_OUT = {
    "section": (
        "Whole sections held out",
        "every section was predicted by models that had learned from the other sections only. This is what to expect "
        "of a new section of the same kind of tissue, stained and scanned alike.",
    ),
    "patient": (
        "Whole patients held out",
        "all sections of a patient were predicted by models that had learned from other patients only. This is what "
        "to expect of a new patient.",
    ),
    "block": (
        "Blocks inside a section held out",
        "every section was cut into contiguous blocks, and each block was predicted by models that had learned from "
        "the rest of the same section, without the spots around the block. This is what to expect of a part of a "
        "section that was not measured.",
    ),
}
"""Protocol -> heading, and what it means."""


def write(
    inputs: Mapping[str, Any],
    captions: list[str],
    config: dict[str, Any],
    samples: dict[str, dict[str, Any]],
    *,
    notebook: str | os.PathLike,
    executed: str | os.PathLike,
    output: str | os.PathLike,
    methods_path: str | os.PathLike,
    shown: Mapping[str, Mapping[str, Any]] | None = None,
    sources: Mapping[str, Mapping[str, str]] | None = None,
    excluded: Sequence[str] = (),
) -> None:
    """Make the page of a study and its Methods paragraph.

    Parameters
    ----------
    inputs
        Paths: facts and pictures (lists, in the order of `samples`), metrics; where the study was integrated
        verdict and integration (a list of pngs, known by their stems); where expression was predicted from images
        histology_figures (likewise), histology_verdict and registration, as far as they were made.
    captions
        The .rst files of what is shown, known by their stems.
    config
        Completed config.
    samples
        Sample to row of the sheet.
    notebook, executed, output, methods_path
        The notebook; its executed copy, the page and the paragraph that are written.
    shown
        What further stages show; see `stages.sections`.
    sources
        Where the inputs come from; see `trace.addresses`.
    excluded
        Samples of the sheet that the config leaves out.
    """
    shown = {stage: dict(parts) for stage, parts in (shown or {}).items()}
    facts = read_facts(inputs.get("facts") or [])
    versions = installed_versions(REPOSITORY / "envs")
    paragraph_text, cited = methods(
        config, facts, versions, registered="registration" in inputs, deconvolved="deconvolution" in shown
    )
    Path(methods_path).write_text(paragraph_text + "\n", encoding="utf-8")
    parameters = {
        "config": portable_values(config),
        "sheet": sheet_rows(samples, config),
        "facts": [str(path) for path in inputs.get("facts") or []],
        "failed": failed_jobs(Path(output).parents[1]),
        "left_out": left_out(excluded, Path("logs") / config["study"]),
        "pictures": dict(zip(samples, map(str, inputs.get("pictures") or []), strict=True)),
        "metrics": str(inputs["metrics"]),
        "verdict": str(inputs.get("verdict") or ""),
        "figures": {Path(path).stem: str(path) for path in inputs.get("integration") or []},
        "histology": {
            "verdict": str(inputs.get("histology_verdict") or ""),
            "registration": str(inputs.get("registration") or ""),
            "figures": {Path(path).stem: str(path) for path in inputs.get("histology_figures") or []},
        },
        "shown": shown,
        "captions": {Path(path).stem: caption_text(path) for path in captions},
        "traced": trace.addresses(sources or {}, Path(output).parent),
        "methods_text": paragraph_text,
        "cited": cited,
        "versions": versions,
        "provenance": {
            "commit": commit(REPOSITORY),
            "command": portable(os.environ.get(COMMAND_VARIABLE, "")),
            "environments": run_record.environments(REPOSITORY / "envs"),
            "devices": run_record.devices(inputs["metrics"]),
        },
    }
    title = config["title"] or config["study"]
    render.write_page(notebook, executed, output, parameters, title=title, study=title)


def read_facts(paths: Sequence[str | os.PathLike]) -> list[dict[str, Any]]:
    """Read the facts of each sample."""
    return [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths if not gaps.of(path)]


def left_out(excluded: Sequence[str], logs: str | os.PathLike) -> list[dict[str, str]]:
    """Return the samples that the config leaves out, each with what made it fail, where that is remembered.

    Parameters
    ----------
    excluded
        Their names.
    logs
        Folder of the study's logs.
    """
    failed = {found.sample: found for found in failures.remembered(logs)} if excluded else {}
    return [
        {"sample": name, "why": portable(failures.first_line(failed[name].message)) if name in failed else ""}
        for name in excluded
    ]


def sheet_rows(samples: dict[str, dict[str, Any]], config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sample sheet as it was given: clinical columns beside the others, paths below the data root."""
    root = Path(str(config.get("data_root", "."))).expanduser()
    rows = []
    for row in samples.values():
        flat = {key: value for key, value in row.items() if key not in ("line", "clinical")} | row.get("clinical", {})
        for column in ("path", "image", "labels", "positions"):
            value = str(flat.get(column) or "")
            if value and Path(value).is_relative_to(root):
                value = Path(value).relative_to(root).as_posix()
            flat[column] = portable(value)
        rows.append(flat)
    used = [column for column in next(iter(rows), ()) if any(row.get(column) not in (None, "") for row in rows)]
    return [{column: row.get(column) for column in used} for row in rows]


def commit(repository: Path) -> str:
    """Return the git commit of the workflow, with a word when files differ from it; empty when there is none."""
    import subprocess

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        # A workflow that was unpacked inside another repository must not take that one's commit for its own.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != repository.resolve():
            return ""
        found = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{found}, with changes that are not committed" if changed else found


def header(config: dict[str, Any], facts: list[dict[str, Any]], sheet: list[dict[str, Any]]) -> Html:
    """Return the title and what was run, in a paragraph."""
    made_up = f"results/{config['study']}/simulated/"
    simulated = any(str(row.get("path", "")).startswith(made_up) for row in sheet)
    caution = " The tissue is simulated: nothing here says anything about real tissue." if simulated else ""
    author = paragraph(config["report"]["author"], kind="quiet") if config["report"]["author"] else ""
    explorer = ""
    if facts and config["report"]["explorer"]["run"]:
        look = Html('<a class="button" href="../explorer/index.html">Open the explorer</a>')
        explorer = paragraph(
            look, " to pan and zoom every section, and to colour it by any gene or group.", kind="look"
        )
    return Html("<header><h1>{}</h1>{}{}{}</header>").format(
        config["title"] or config["study"], author, paragraph(_summary(config, facts) + caution, kind="lead"), explorer
    )


def _summary(config: dict[str, Any], facts: list[dict[str, Any]]) -> str:
    n = len(facts)
    if not n:
        return f"A study without sections. Everything random used seed {config['seed']}."
    kinds = ", ".join(dict.fromkeys(PLATFORMS.get(f["platform"], f["platform"]) for f in facts))
    patients = {f["patient"] for f in facts}
    units = {f["unit"] for f in facts}
    unit = units.pop() if len(units) == 1 else "spots or cells"
    given, kept = sum(f["barcodes_in"] for f in facts), sum(f["barcodes"] for f in facts)
    of = f" of {len(patients)} subjects" if len(patients) > 1 else ""
    text = (
        f"{n} section{'s' if n > 1 else ''}{of} ({kinds}): {number(given)} {unit} came in and {number(kept)} "
        f"({percent(kept, given)}) passed quality control. Each section was normalised, clustered with Leiden at "
        f"resolution {plain(config['expression']['resolution'])} and searched for marker genes"
    )
    if n > 1:
        names = {"none": "doing nothing", "harmony": "Harmony", "scvi": "scVI"}
        others = [names.get(m, m) for m in config["integration"]["methods"] if m != "none"]
        text += "; the sections were then joined"
        text += f" by {' and '.join(others)} and compared with doing nothing" if others else " without correction"
    painted = sum(bool(f.get("histology")) for f in facts)
    if painted:
        every = "every pixel of the H&E" if painted == n else f"the H&E of {painted} of them"
        text += f". Gene expression was predicted from the image and painted onto {every}"
    return f"{text}. Everything random used seed {config['seed']}."


def warnings(
    facts: list[dict[str, Any]],
    verdict: str,
    predicted: Mapping[str, Any],
    shown: Mapping[str, Any] | None = None,
) -> Html:
    """Return the warnings of every sample, of the integration, of the image models and of further stages.

    What several samples say alike is said once.
    """
    names = [f["sample"] for f in facts]
    found: dict[tuple[str, str], list[str]] = {}
    for f in facts:
        for text in f["warnings"]:
            found.setdefault(("", text), []).append(f["sample"])
    told = [("integration", portable(str(text))) for text in stages.read_verdict(verdict).get("warnings", [])]
    told += [("histology", text) for text in _below(stages.read_verdict(predicted.get("verdict", "")))]
    for stage, text in told + stages.warnings(shown or {}):
        sample, _, rest = text.partition(": ")
        whose, said = ([sample], rest) if sample in names and rest else ([], text)
        found.setdefault((stage, said), []).extend(whose)
    lines = [_warning(stage, text, whose) for (stage, text), whose in found.items()]
    if not lines:
        return notice("good", "No warnings", ["No section and no step of this study had anything to report."])
    title = f"{len(lines)} warning{'s' if len(lines) > 1 else ''}"
    box = notice("warning", title, lines[:MOST_WARNINGS])
    rest = lines[MOST_WARNINGS:]
    return joined([box, folded(f"{len(rest)} more of them", notice("warning", "", rest))]) if rest else box


def _warning(stage: str, text: str, names: Sequence[str]) -> Html:
    """Return a warning with links to the stage it is of and to the samples it is about."""
    linked = [Html('<a href="{0}.html"><b>{0}</b></a>').format(name) for name in names[:MOST_NAMES]]
    if len(names) > MOST_NAMES:
        linked.append(Html("{} more").format(len(names) - MOST_NAMES))
    head = [part for part in (stages.link(stage) if stage else "", joined(linked, ", ")) if part]
    return joined([joined(head, ", "), ": ", remark(text)])


def failed_jobs(results: str | os.PathLike) -> list[str]:
    """Return each job that failed and left gaps below a folder: its rule, its sample, why, and its log."""
    marks = Path(results).rglob(f"*{gaps.SUFFIX}")
    found = [gaps.of(str(mark).removesuffix(gaps.SUFFIX)) for mark in marks]
    return sorted({portable(gap.reason) for gap in found if gap.failed})


def failed(jobs: Sequence[str]) -> Html:
    """Return what is missing from the page because jobs failed; nothing after a whole run."""
    title = "Parts of this study failed, and this page was made from the rest"
    return notice("warning", title, list(jobs)) if jobs else Html("")


def how_read(facts: list[dict[str, Any]]) -> Html:
    """Return what was taken in some samples alone where files left a choice; their pages say the rest."""
    found: dict[tuple[str, str], list[str]] = {}
    for f in facts:
        for topic, taken in (f.get("read_as") or {}).items():
            found.setdefault((topic, taken), []).append(f["sample"])
    if not found:
        return Html("")
    rows = []
    for (topic, taken), names in found.items():
        if len(names) < len(facts):
            rows.append([topic, taken, ", ".join(names)])
    alike = paragraph("What was taken alike in all samples stands on their pages.")
    if not rows:
        return section("How the files were read", alike)
    shown = table(["What", "Taken", "Samples"], rows, tall=len(rows) > 20)
    return section("How the files were read", folded(f"{len(rows)} choices", shown) if len(rows) > 8 else shown, alike)


def excluded(left_out: Sequence[Mapping[str, str]]) -> Html:
    """Return which samples of the sheet are missing from the study and why; nothing where all are in it."""
    if not left_out:
        return Html("")
    lines = [
        Html("<b>{}</b>: {}").format(one["sample"], one["why"] or "left out by the config (option exclude).")
        for one in left_out
    ]
    n = len(lines)
    return notice("warning", f"{n} sample{'s' if n > 1 else ''} of the sheet left out", lines)


def answers(verdict: str, predicted: Mapping[str, Any], shown: Mapping[str, Any]) -> Html:
    """Return what was found, first of all: a short paragraph for each stage."""
    paths = {"integration": verdict, "histology": predicted.get("verdict", "")}
    return stages.answers(paths | {stage: parts.get("verdict", "") for stage, parts in shown.items()})


def samples(facts: list[dict[str, Any]]) -> Html:
    """Return the table of samples, each linked to its page; nothing for a study without sections."""
    if not facts:
        return Html("")
    columns = ["Sample", "Patient", "Condition", "Platform", "Came in", "Kept", "Lost at quality control"]
    columns += ["Median genes", "Median counts", "Clusters", "Stability (ARI)", "Against labels (ARI)", "Warnings"]
    several = len({f["platform"] for f in facts}) > 1
    rows = [
        [
            Html('<a href="{0}.html">{0}</a>').format(f["sample"]),
            f["patient"],
            f["condition"],
            f"{PLATFORMS.get(f['platform'], f['platform'])} ({f['unit']})" if several else "",
            f["barcodes_in"],
            f["barcodes"],
            _lost(f),
            f["median_genes"],
            f["median_counts"],
            f["clusters"],
            chosen_stability(f).get("ari_mean"),
            f["label_ari"],
            len(f["warnings"]) or None,
        ]
        for f in facts
    ]
    said = [at for at in range(len(columns)) if any(row[at] not in (None, "") for row in rows)]
    shown = [[row[at] for at in said] for row in rows]
    return section(
        "Samples",
        table([columns[at] for at in said], shown, tall=len(rows) > 20),
        _counted("Counted by rules ingest_counts and qc, clustered by rule leiden; gathered in", "facts.json"),
    )


def _counted(words: str, file: str) -> Html:
    """Return where the numbers of all sections stand."""
    return Html('<p class="source"><span>{} <code>samples/&lt;sample&gt;/{}</code></span></p>').format(words, file)


def _lost(facts: dict[str, Any]) -> str:
    lost = facts["barcodes_in"] - facts["barcodes"]
    return f"{number(lost)} ({percent(lost, facts['barcodes_in'])})"


def gallery(facts: list[dict[str, Any]], pictures: Mapping[str, str], traced: Mapping[str, Mapping[str, Any]]) -> Html:
    """Return a small picture of each section, linked to its page: its domains, or its clusters without coordinates."""
    if not facts:
        return Html("")
    of_domains = [f["sample"] for f in facts if Path(pictures[f["sample"]]).stem == "domain"]
    notes = []
    if of_domains:
        notes.append("Domains were found in all sections together: a colour is the same domain in every section.")
    if len(of_domains) < len(facts):
        notes.append("Clusters were found in each section alone: a colour is another cluster in the next section.")
    cards = [_card(f, pictures[f["sample"]], traced) for f in facts]
    words = paragraph(" ".join([*notes, "Choose a picture for the section's page."]))
    return section("The tissue", words, Html('<div class="gallery">{}</div>').format(joined(cards)))


def _card(facts: dict[str, Any], picture: str, traced: Mapping[str, Mapping[str, Any]]) -> Html:
    shown = {"domain": "Domains", "clusters": "Clusters"}[Path(picture).stem]
    size = f"{number(facts['barcodes'])} {facts['unit']}"
    words = ", ".join(filter(None, [facts["patient"], facts["condition"], size]))
    anchor = stages.anchor("space") if shown == "Domains" else "clusters"
    return Html(
        '<figure><a href="{0}.html#{1}"><img src="{2}" alt="{3} of {0}"></a>'
        '<figcaption><a href="{0}.html"><b>{0}</b></a> <span>{4}</span>{5}</figcaption></figure>'
    ).format(facts["sample"], anchor, thumbnail(picture), shown, words, trace.line(picture, traced))


def quality(facts: list[dict[str, Any]], captions: dict[str, str]) -> Html:
    """Return how many barcodes and genes each filter removed, for all samples."""
    if not facts:
        return Html("")
    rules = list(dict.fromkeys((row["axis"], row.get("rule") or row["filter"]) for f in facts for row in f["qc"]))
    rules.sort(key=lambda rule: rule[0] == "genes")
    barcode_rules = [rule for rule in rules if rule[0] != "genes"]
    gene_rules = [rule for rule in rules if rule[0] == "genes"]
    columns = ["Sample", "In", *(f"− {rule[1]}" for rule in barcode_rules), "Kept"]
    columns += ["Genes in", *(f"− {rule[1]}" for rule in gene_rules), "Genes kept"]
    rows = []
    for f in facts:
        removed = {(row["axis"], row.get("rule") or row["filter"]): row["removed"] for row in f["qc"]}
        row = [f["sample"], f["barcodes_in"], *(removed.get(rule) for rule in barcode_rules), f["barcodes"]]
        rows.append([*row, f["genes_in"], *(removed.get(rule) for rule in gene_rules), f["genes"]])
    return section(
        "Quality control",
        table(columns, rows, tall=len(rows) > 20),
        caption(captions["qc_table"]),
        _counted("Counted by rule qc:", "qc.tsv"),
    )


def integration(
    verdict: str,
    figures: dict[str, str],
    metrics: str,
    captions: dict[str, str],
    traced: Mapping[str, Any],
) -> Html:
    """Return whether joining the sections was worth it; nothing for a study of one section."""
    from histoweft.report.scores import read_scores

    if not verdict:
        return Html("")
    said = stages.read_verdict(verdict)
    if gap := gaps.of(verdict):
        return section(stages.INTEGRATION_TITLE, missing(gap))
    best, text = str(said.get("best", "")), str(said.get("text", ""))
    floor_won = best.removeprefix("floor:") == "none"
    title = "Doing nothing was best" if floor_won else f"Best: {best}" if best else "Verdict"
    items = [text or "No verdict was written.", *filter(None, [_measured_against(said)])]
    pictures = [
        figure(
            figures[name],
            alt,
            caption(captions[_caption_of(name)]),
            anchor=f"figure-{name}",
            source=trace.line(figures[name], traced),
        )
        for name, alt in _INTEGRATION_ALT.items()
        if name in figures
    ]
    frame = read_scores(metrics)
    return section(
        stages.INTEGRATION_TITLE,
        notice("plain" if floor_won else "good", title, items),
        *pictures,
        Html("<h3>Scores</h3>"),
        _integration_table(frame.loc[frame["task"] == "integration"]),
        caption(captions["integration_table"]),
        trace.line(metrics, traced),
    )


def _caption_of(name: str) -> str:
    return "integration_effect" if name == "section_effect" else f"integration_{name}"


def _measured_against(said: dict[str, Any]) -> str:
    conservation = str(said.get("conservation", ""))
    return f"Conservation was measured against {conservation}." if conservation else ""


def _integration_table(frame: Any) -> Html:
    """Return methods as rows, the floor first, and metrics as columns, totals last."""
    from histoweft.report.scores import is_floor

    methods_found = sorted(frame["method"].unique(), key=lambda method: not is_floor(method))
    metrics = [m for m in frame["metric"].unique() if not m.startswith("scib_") and m != "seconds"]
    metrics += [m for m in ("scib_batch", "scib_bio", "scib_total", "seconds") if m in set(frame["metric"])]
    values = frame.loc[frame["sample"] == "all"].groupby(["method", "metric"])["value"].mean()
    rows = []
    for method in methods_found:
        tag = Html(' <span class="tag">floor</span>') if is_floor(method) else ""
        name = joined([method.removeprefix("floor:"), tag])
        rows.append([name, *(values.get((method, metric)) for metric in metrics)])
    kinds = ["floor" if is_floor(method) else "" for method in methods_found]
    columns = ["Method", *(metric.replace("_", " ") for metric in metrics)]
    return table(columns, rows, row_kinds=kinds, empty="Nothing was scored.")


def _below(said: Mapping[str, Any]) -> list[str]:
    """Say where the default loses to a baseline, or to the bar."""
    found = []
    for protocol, judged in said.get("protocols", {}).items():
        held_out = _HELD_OUT[protocol][0].lower()
        if not judged["beats_floors"]:
            found.append(f"With {held_out}, a simple baseline predicts expression better than {judged['default']}.")
        elif not judged["meets_bar"]:
            found.append(f"With {held_out}, {judged['default']} stays below the bar, a plain ensemble of learners.")
    return found


def histology(
    facts: list[dict[str, Any]],
    predicted: Mapping[str, Any],
    metrics: str,
    captions: dict[str, str],
    traced: Mapping[str, Any],
) -> Html:
    """Return how well expression is predicted from the image; nothing for a study without images.

    Parameters
    ----------
    facts
        Of every sample.
    predicted
        Paths: verdict and registration (may be empty), figures by their stems.
    metrics
        Path of the study's metrics table.
    captions
        By their names.
    traced
        Of `trace.addresses`.
    """
    from histoweft.report.scores import from_image, image_methods, image_table, read_scores

    imaged = [f for f in facts if f.get("histology")]
    if not imaged:
        return Html("")
    if predicted["verdict"] and (gap := gaps.of(predicted["verdict"])):
        return section(FROM_IMAGE_TITLE, missing(gap))
    said, frame = stages.read_verdict(predicted["verdict"]), read_scores(metrics)
    scored = from_image(frame)
    pictures = {
        name: figure(
            predicted["figures"][name],
            alt,
            caption(captions[words]),
            anchor=f"figure-histology-{name}",
            source=trace.line(predicted["figures"][name], traced),
        )
        for name, (words, alt) in _HISTOLOGY_FIGURES.items()
        if name in predicted["figures"]
    }
    content = [paragraph(_what_was_done(imaged, facts), _how_to_read() if said else "")]
    content += [_judged(protocol, said, scored) for protocol in said.get("protocols", {})]
    if said:
        content += [
            _painted_with(said),
            pictures.pop("scores", ""),
            Html("<h3>Methods and protocols</h3>"),
            image_table(frame),
            caption(captions["histology_table"]),
            trace.line(metrics, traced),
            image_methods(frame),
            Html("<h3>Training spots and held-out spots</h3>"),
            paragraph(*_hidden(frame), _leaks(said, scored)),
            pictures.pop("overfit", ""),
        ]
    if pictures:
        content += [Html("<h3>Pretraining on the images alone</h3>"), *pictures.values()]
    if predicted["registration"]:
        content += _registration(predicted["registration"], captions)
    return section(FROM_IMAGE_TITLE, *content)


def _what_was_done(imaged: list[dict[str, Any]], facts: list[dict[str, Any]]) -> str:
    n, left = len(imaged), len(facts) - len(imaged)
    units = {f["unit"] for f in imaged}
    unit = units.pop() if len(units) == 1 else "spots"
    without = f" {left} section{'s have' if left > 1 else ' has'} no image and took no part." if left else ""
    return (
        f"Models learned to predict the expression of {unit} from the H&E of {n} section{'s' if n > 1 else ''}, and "
        f"then painted genes onto every pixel of the tissue (on the pages of the sections).{without} "
    )


def _how_to_read() -> str:
    return (
        "How far a map can be trusted is told by spots that a model never saw. Below, r is the correlation between "
        "predicted and measured expression of a gene over held-out spots, averaged over genes: 0 is no better than "
        "guessing, and the ceiling is what the noise of the counts allows."
    )


def _judged(protocol: str, said: Mapping[str, Any], scored: Any) -> Html:
    """Return a box: what was held out, the default, and what it stands beside."""
    from histoweft.report.scores import BAR, CEILING, PRIMARY, is_floor

    judged = said["protocols"][protocol]
    default, winner = judged["default"], judged["winner"]
    own = scored.loc[scored["protocol"] == protocol]
    scores = own.loc[own["metric"] == PRIMARY].set_index("method")
    gains = own.loc[own["metric"].str.startswith("gain_") & (own["method"] == default)].set_index("note")
    heading, meaning = _HELD_OUT[protocol]
    if default == "context_serial":
        meaning += " The default needs the new section to be serial to measured ones."
    floor = scores.loc[scores.index.map(is_floor), "value"].idxmax()
    items = [
        _labelled("What it means", meaning),
        _labelled("Default", _method(default), f": r = {_with_interval(scores.loc[default])}."),
        _labelled("Best simple baseline", _method(floor), _beside(scores["value"], default, floor, gains)),
    ]
    if BAR in scores.index:
        items.append(_labelled("Bar", _method(BAR), _beside(scores["value"], default, BAR, gains)))
    if CEILING in scores.index:
        reached = percent(scores["value"][default], scores["value"][CEILING])
        most = f"r = {_with_interval(scores.loc[CEILING])}; the default reaches {reached} of it."
        items.append(_labelled("Ceiling (the noise of the counts)", most))
    if protocol != "block" and said.get("image_adds"):
        items.append(_labelled("Image and position", _minus(str(said["image_adds"]))))
    if winner != default:
        items.append(_labelled("Best here", _method(winner), f": r = {scores['value'][winner]:.3f}."))
    certain = f"against {floor}" not in gains.index or gains["low"][f"against {floor}"] > 0
    kind, words = _rank(judged["beats_floors"], judged["meets_bar"], certain)
    return notice(kind, f"{heading}: {words}", items)


def _rank(beats_floors: bool, meets_bar: bool, certain: bool) -> tuple[str, str]:
    """Return the kind of notice, and the verdict in a few words."""
    if not beats_floors:
        return "warning", "a simple baseline does better"
    if not meets_bar:
        above = "better than" if certain else "hardly better than"
        return "warning", f"{above} the simple baselines, and below the bar"
    if not certain:
        return "plain", "above the simple baselines, though that may be chance"
    return "good", "better than the simple baselines, and not below the bar"


def _labelled(label: str, *text: Any) -> Html:
    return joined([Html("<b>{}:</b> ").format(label), *text])


def _method(name: str) -> Html:
    """Return what a method is, with its name in the tables."""
    from histoweft.report.scores import METHODS

    return Html("{} (<code>{}</code>)").format(METHODS[name], name) if name in METHODS else Html("{}").format(name)


def _minus(text: str) -> str:
    return re.sub(r"-(?=\d)", "−", text)


def _with_interval(row: Any) -> str:
    return _minus(f"{row['value']:.3f} (95 % interval {row['low']:.3f} to {row['high']:.3f})")


def _beside(values: Any, default: str, other: str, gains: Any) -> str:
    """Return another method's score, and by how much the default is above or below it."""
    difference = values[default] - values[other]
    side = "above" if difference >= 0 else "below"
    text = f": r = {values[other]:.3f}; the default is {abs(difference):.3f} {side} it"
    if f"against {other}" not in gains.index:
        return f"{text}."
    gain = gains.loc[f"against {other}"]
    chance = ", which may be chance" if gain["low"] <= 0 <= gain["high"] else ""
    return _minus(f"{text} (95 % interval of the difference {gain['low']:+.3f} to {gain['high']:+.3f}{chance}).")


def _painted_with(said: Mapping[str, Any]) -> Html:
    name = str(said["paint"])
    why = ", which scored higher than the networks inside sections" if name.startswith("floor:") else ""
    return paragraph(
        "The maps on the pages of the sections are painted with ", _method(name),
        f"{why}, trained on the spots of all sections: its rows below are the scores that speak for them. ",
        "The scores of every single gene are in ", Html("<code>histology/genes.tsv</code>"),
        ": some genes show in the image and others do not.",
    )  # fmt: skip


def _hidden(frame: Any) -> list[Any]:
    """Say what evaluation on training spots hides, by the model and protocol in which it hides most."""
    from histoweft.report.scores import HELD_OUT, PRIMARY, from_image

    training = frame.loc[(frame["metric"] == f"{PRIMARY}_training") & (frame["protocol"] != "random")]
    claimed = training.groupby(["protocol", "method"])["value"].mean()
    scored = from_image(frame)
    reached = scored.loc[scored["metric"] == PRIMARY].set_index(["protocol", "method"])["value"]
    drops = (claimed - reached).dropna()
    if drops.empty:
        return []
    protocol, method = drops.idxmax()
    text = (
        f", judged on the spots it was trained on, would have claimed r = {claimed[protocol, method]:.2f}; on spots it "
        f"had not seen ({HELD_OUT[protocol]} held out) it reaches {reached[protocol, method]:.2f}. Evaluation on "
        "training spots hides this: it measures what a model remembers, not what it can predict."
    )
    return [Html("<code>{}</code>").format(method), _minus(text)]


def _leaks(said: Mapping[str, Any], scored: Any) -> str:
    """Say how much better spots held out at random would have looked."""
    from histoweft.report.scores import PRIMARY

    default = said["protocols"].get("block", {}).get("default")
    values = scored.loc[scored["metric"] == PRIMARY].set_index(["protocol", "method"])["value"]
    if ("random", default) not in values.index or ("block", default) not in values.index:
        return ""
    return (
        f" Spots held out at random, their neighbours in training, would have claimed {values['random', default]:.2f} "
        f"for the default, where blocks say {values['block', default]:.2f}."
    )


def _registration(path: str, captions: Mapping[str, str]) -> list[Html]:
    import pandas as pd

    found = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    found["transform"] = [_minus(text).replace(" um", " µm") for text in found["transform"]]
    rows = found[["sample", "onto", "transform"]].to_numpy().tolist()
    return [
        Html("<h3>Registration of serial sections</h3>"),
        table(["Sample", "Laid onto", "Transform"], rows, tall=len(rows) > 20),
        caption(captions["registration_table"]),
    ]


def all_scores(metrics: str, captions: dict[str, str], traced: Mapping[str, Any]) -> Html:
    """Return what each task uses beside its best floor, and every score of the study, folded by task."""
    from histoweft.report.scores import evidence, judged, judged_table, read_scores, sentence, without_parts

    frame = read_scores(metrics)
    shown = without_parts(frame)
    left = len(frame) - len(shown)
    more = f"Shown are means over sections and folds; {left:,} rows of single ones are in " if left else ""
    return section(
        "Evidence",
        paragraph(
            "Each task in the metric that judges it: what the workflow uses beside the best simple baseline. ",
            Html("<em>level</em> means that the 95 % interval does not tell them apart; a model that "),
            Html("<em>loses</em> should not be used, whatever it is called."),
        ),
        judged_table(judged(frame)),
        trace.line(metrics, traced),
        Html("<h3>Every score</h3>"),
        caption(captions["metrics_table"]),
        paragraph(more, Html("<code>metrics.tsv</code>"), ".", kind="quiet") if left else "",
        *(
            folded(f"{sentence(task)}: {len(rows):,} scores", evidence(rows, tall=len(rows) > 25, task=False))
            for task, rows in shown.groupby("task", sort=False)
        ),
    )


def methods_section(text: str, cited: list[str]) -> Html:
    """Return the Methods paragraph and its references."""
    items = [Html('<li>{0} <a href="https://doi.org/{1}">doi:{1}</a></li>').format(*REFERENCES[key]) for key in cited]
    return section(
        "Methods",
        paragraph("Ready to paste; also in ", Html("<code>methods.txt</code>"), " beside this page.", kind="quiet"),
        Html('<div class="notice plain"><p>{}</p></div>').format(text),
        Html('<h3>References</h3><ul class="references">{}</ul>').format(joined(items)),
    )


def provenance(
    config: dict[str, Any], sheet: list[dict[str, Any]], versions: dict[str, str], found: dict[str, Any]
) -> Html:
    """Return what the study came from: sheet, config, versions, command, commit."""
    import yaml

    pairs = [("Command", found["command"]), ("Commit of the workflow", found["commit"])]
    pairs += [("Trained on", found.get("devices", "")), *versions.items()]
    listed = joined(Html("<dt>{}</dt><dd>{}</dd>").format(name, value) for name, value in pairs if value)
    return section(
        "Provenance",
        *(_sheet(sheet) if sheet else ()),
        _as_text("Config with all defaults (config.yaml)", yaml.safe_dump(config, sort_keys=False, allow_unicode=True)),
        run_record.environment_table(found.get("environments") or []),
        Html('<h3>Run</h3><dl class="pairs">{}</dl>').format(listed),
        run_record.crate_note(),
    )


def _sheet(sheet: list[dict[str, Any]]) -> list[Html]:
    """Return the sample sheet as a table and as text."""
    columns = list(sheet[0])
    rows = [["" if value is None else value for value in row.values()] for row in sheet]
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in rows)]
    return [
        Html("<h3>Sample sheet</h3>"),
        table(columns, rows, tall=len(sheet) > 20),
        _as_text("The sheet as text (samples.tsv)", "\n".join(lines)),
    ]


def _as_text(title: str, text: str) -> Html:
    return folded(title, Html("<pre><code>{}</code></pre>").format(text))


def reproduce(config: dict[str, Any], found: dict[str, str]) -> Html:
    """Return how to make the study again."""
    at = f" at commit {found['commit'].split(',')[0]}" if found["commit"] else ""
    steps = [
        f"Get Histoweft{at}.",
        Html(
            "Save the config above as <code>config.yaml</code> and the sheet as <code>samples.tsv</code>, with "
            "<code>samples: samples.tsv</code> in the config and <code>data_root</code> set to where your data lie."
        ),
        Html("Run <code>./histoweft --configfile config.yaml</code>."),
    ]
    note = (
        f"The seed is {config['seed']} and every package is pinned in envs/*.lock.txt, so a second run on the same "
        "machine gives the same tables."
    )
    items = joined(Html("<li>{}</li>").format(step) for step in steps)
    return section("How to reproduce", Html("<ol>{}</ol>").format(items), paragraph(note))
