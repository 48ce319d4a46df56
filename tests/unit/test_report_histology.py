"""What the pages say of expression predicted from the H&E: the verdict, its numbers, and no more than they bear."""

import json
from pathlib import Path

import pandas as pd
import pytest
from report_cases import CONFIG, EVIL, captions_of, make_sample, paths_of, picture
from test_report import Page, assert_safe_and_whole

from histoweft import study as studies
from histoweft.metrics import metric_row, write_metrics
from histoweft.report import facts as facts_of
from histoweft.report import html, methods, sample_page, scores, study_page

SCORES = {
    "floor:mean": 0.0, "floor:library_size": 0.3, "floor:coordinates": 0.5, "bar:ensemble": 0.56, "autoencoder": 0.1,
    "context": 0.6, "ceiling:thinning": 0.8,
}  # fmt: skip
STAIN = {
    "sample": "A1", "um_per_px": 2.5, "tissue": 0.4, "spots_outside": 0.034, "n_tiles": 1200, "n_kept": 300,
    "blank_rate": 0.7, "blurred_rate": 0.125, "warnings": [],
}  # fmt: skip


NOTES = {"context": "default", "floor:library_size": "told the spot's total count"}


def row_of(protocol, method, metric, value, sample="all", fold="all", note=None, **more):
    note = NOTES.get(method, "") if note is None else note
    where = ("demo", "histology", scores.FROM_IMAGE, method, sample, protocol)
    return metric_row(*where, metric, value, fold=fold, note=note, n=300, **more)


def rows_of(protocol, values, samples=("A1", "A2"), gains=None):
    """Write what the histology stage would have scored: folds, sections, and the mean over all."""
    rows = []
    for method, value in values.items():
        size = {"low": value - 0.05, "high": value + 0.05}
        for sample in samples:
            folds = [sample] if protocol == "section" else ["block_1", "block_2"]
            rows += [row_of(protocol, method, "pearson_top50", value + 0.01, sample, fold, **size) for fold in folds]
            if len(folds) > 1:
                rows.append(row_of(protocol, method, "pearson_top50", value + 0.02, sample, **size))
        rows.append(row_of(protocol, method, "pearson_top50", value, **size))
        others = {"pearson_top50_depth": 0.8 * value, "mse_ratio_top50": 1 - value}
        if method != "autoencoder":
            others |= {"pearson_all": 0.5 * value, "share_better_all": value}
        others = {"pearson_all": 0.5 * value} if method == scores.CEILING else others
        rows += [row_of(protocol, method, metric, other) for metric, other in others.items()]
    for other, (value, low, high) in (gains or {}).items():
        rows.append(row_of(protocol, "context", "gain_top50", value, low=low, high=high, note=f"against {other}"))
    trained = {"context": 0.7, "autoencoder": 0.85}.items()
    return rows + [row_of(protocol, method, "pearson_top50_training", value, note="") for method, value in trained]


GAINS = {"floor:coordinates": (0.1, 0.08, 0.12), "bar:ensemble": (0.04, 0.01, 0.07)}


def verdict_of(protocol, beats=True, meets=True, winner="context", **more):
    judged = {"default": "context", "winner": winner, "beats_floors": beats, "meets_bar": meets}
    return {"protocols": {protocol: judged}, "texts": {}, "paint": "context", "image_adds": ""} | more


def facts_for(sample="A1", stain=STAIN):
    image = {name: value for name, value in stain.items() if name != "sample"} if stain else None
    return {
        "sample": sample, "patient": sample, "platform": "st", "unit": "spots", "histology": image, "barcodes": 300,
        "barcodes_in": 310, "warnings": [], "spot_diameter_um": 100.0, "genes": 900, "image": bool(stain),
    }  # fmt: skip


@pytest.fixture(scope="module")
def captions(repo):
    return {Path(path).stem: html.caption_text(path, "A1") for path in captions_of(repo)}


@pytest.fixture
def part(tmp_path, captions):
    """Return a function that makes the section of the study page of rows and a verdict."""

    def make(rows, said, facts=None, **predicted):
        metrics = tmp_path / "metrics.tsv"
        write_metrics(rows, metrics)
        path = tmp_path / "verdict.json"
        path.write_text(json.dumps(said))
        made = {"verdict": str(path) if said else "", "registration": "", "figures": {}} | predicted
        return str(study_page.histology(facts or [facts_for()], made, str(metrics), captions, {}))

    return make


# ---------------------------------------------------------------------------------------------------------- scores


def frame_of(*parts):
    return pd.DataFrame([row for part in parts for row in part]).fillna({"note": "", "panel": ""}).astype({"n": float})


def test_means_are_those_of_the_study_or_of_one_section():
    frame = frame_of(rows_of("section", SCORES), rows_of("block", SCORES))
    whole, own = scores.from_image(frame), scores.from_image(frame, "A2")
    values = {
        (table, row.protocol): row.value
        for table, found in (("all", whole), ("A2", own))
        for row in found[(found["metric"] == "pearson_top50") & (found["method"] == "context")].itertuples()
    }
    assert values == {
        ("all", "section"): 0.6, ("all", "block"): 0.6,
        ("A2", "section"): pytest.approx(0.61),  # its only fold
        ("A2", "block"): pytest.approx(0.62),  # the mean over its folds, not one of them
    }  # fmt: skip


def test_single_folds_are_left_out_of_the_evidence_where_their_mean_is_shown():
    frame = frame_of(rows_of("block", SCORES))
    single = frame.assign(task="domains").loc[frame["sample"] != "all"]
    shown = scores.without_parts(pd.concat([frame, single]))
    assert len(shown) == (frame["sample"] == "all").sum() + len(single)
    assert set(shown.loc[shown["task"] == scores.FROM_IMAGE, "fold"]) == {"all"}


def test_the_table_climbs_from_the_floors_to_the_ceiling():
    frame = frame_of(rows_of("block", SCORES), rows_of("section", SCORES))
    words = Page(str(scores.image_table(frame))).words
    assert words.index("whole sections") < words.index("blocks of a section")
    order = ["mean floor", "library_size floor oracle", "coordinates floor", "ensemble bar", "autoencoder",
             "context default", "thinning ceiling"]  # fmt: skip
    places = [words.index(name) for name in order]
    assert places == sorted(places)
    assert "context default 0.600 0.55 to 0.65 0.300 0.480 60.0 40" in words
    assert "autoencoder 0.100 0.05 to 0.15 – 0.080 – 90" in words  # it learned the genes of the small panels only
    assert "0.800 0.75 to 0.85 0.400 – – –" in words
    assert "−0.05 to 0.05" in words
    assert "oracle" not in words.split("blocks of a section")[1].split("context")[1]
    assert "so nothing was scored" in str(scores.image_table(frame.iloc[:0]))


def test_methods_are_explained_once_and_only_those_that_ran():
    words = Page(str(scores.image_methods(frame_of(rows_of("block", SCORES), rows_of("section", SCORES))))).words
    assert words.count("four-layer convolutional autoencoder") == 1
    assert "registered position" not in words


def test_a_panel_is_noted_where_the_metric_does_not_name_it():
    rows = [
        row_of("block", "context", metric, 0.5, note="", panel=panel)
        for metric, panel in (("pearson_top50_depth", "top50 (50)"), ("r2", "markers (16)"), ("mse", ""))
    ]
    words = Page(str(scores.evidence(frame_of(rows), task=False))).words
    assert "top50 (50)" not in words
    assert words.count("panel: ") == words.count("panel: markers (16)") == 1
    assert "Task" not in words


def test_smaller_errors_are_better_and_ceilings_and_gains_stand_beside_nothing():
    assert scores.against_floor(0.7, [0.9, 1.0], "mse_ratio_top50") == (pytest.approx(-0.2), "better")
    words = Page(str(scores.evidence(frame_of(rows_of("block", SCORES, samples=(), gains=GAINS))))).words
    assert "thinning ceiling 0.800 0.750 to 0.850 –" in words
    assert "gain_top50 context 0.100 0.0800 to 0.120 – 300 against floor:coordinates" in words
    assert "−0.1, better" in words
    assert "no floor" not in words


# ------------------------------------------------------------------------------------------------------ study page


def test_the_verdict_is_told_with_its_intervals(part):
    markup = part(rows_of("block", SCORES, gains=GAINS), verdict_of("block"))
    words = Page(markup).words
    assert 'class="notice good"' in markup
    for said in (
        "Blocks inside a section held out: better than the simple baselines, and not below the bar",
        "( context ): r = 0.600 (95 % interval 0.550 to 0.650).",
        "( floor:coordinates ): r = 0.500; the default is 0.100 above it",
        "0.100 above it (95 % interval of the difference +0.080 to +0.120)",
        "( bar:ensemble ): r = 0.560; the default is 0.040 above it",
        "r = 0.800 (95 % interval 0.750 to 0.850); the default reaches 75 % of it",
    ):
        assert said in words, said
    assert "Best here" not in words
    assert "without the spots around the block" in words


@pytest.mark.parametrize(
    ("values", "gain", "verdict", "kind", "title"),
    [
        ({"context": 0.45}, (-0.05, -0.07, -0.02), {"beats": False, "meets": False, "winner": "bar:ensemble"},
         "warning", "a simple baseline does better"),
        ({"context": 0.53}, (0.03, 0.01, 0.05), {"meets": False, "winner": "bar:ensemble"},
         "warning", "better than the simple baselines, and below the bar"),
        ({"context": 0.53}, (0.03, -0.01, 0.07), {"meets": False, "winner": "bar:ensemble"},
         "warning", "hardly better than the simple baselines, and below the bar"),
        ({"context": 0.57}, (0.07, -0.01, 0.15), {}, "plain", "above the simple baselines, though that may be chance"),
    ],
)  # fmt: skip
def test_a_default_that_does_not_earn_its_place_is_a_warning(part, values, gain, verdict, kind, title):
    said = verdict_of("section", **verdict)
    gains = {"floor:coordinates": gain, "bar:ensemble": (-0.03, -0.04, -0.02)}
    markup = part(rows_of("section", SCORES | values, gains=gains), said)
    words = Page(markup).words
    assert f'class="notice {kind}"' in markup
    assert f"Whole sections held out: {title}" in words
    assert ("which may be chance" in words) == (gain[1] < 0 < gain[2])
    assert ("Best here:" in words) == ("winner" in verdict)
    assert ("the default is 0.050 below it (95 % interval of the difference −0.070 to −0.020)" in words) == (
        gain[0] < 0
    )


def test_warnings_of_the_study_name_what_lost(tmp_path):
    path = tmp_path / "verdict.json"

    def words(**changes):
        path.write_text(json.dumps(verdict_of("patient", **changes)))
        return Page(str(study_page.warnings([facts_for()], "", {"verdict": str(path)})))

    assert "No warnings" in words().words
    lost = words(beats=False, meets=False)
    assert "1 warning" in lost.words
    assert "With whole patients held out, a simple baseline predicts expression better than context" in lost.words
    assert lost.links == [f"#{html.slug(facts_of.FROM_IMAGE_TITLE)}"]
    assert "context stays below the bar" in words(meets=False).words
    assert "No warnings" in Page(str(study_page.warnings([facts_for()], "", {}))).words


def test_what_training_spots_hide_is_said_with_the_widest_gap(part):
    words = Page(part(rows_of("block", SCORES), verdict_of("block"))).words
    assert (
        "autoencoder , judged on the spots it was trained on, would have claimed r = 0.85; on spots it had not" in words
    )
    assert "(blocks of a section held out) it reaches 0.10" in words
    assert "held out at random" not in words
    rows = rows_of("block", SCORES) + rows_of("random", SCORES | {"context": 0.72})
    words = Page(part(rows, verdict_of("block"))).words
    assert "would have claimed 0.72 for the default, where blocks say 0.60" in words


def test_image_and_position_are_told_apart_where_sections_are_serial(part, tmp_path):
    table = tmp_path / "registration.tsv"
    found = [{"sample": "A1", "frame": "study", "onto": "A2", "transform": f"turned by -12 degrees, 5 um {EVIL}"}]
    pd.DataFrame(found).to_csv(table, sep="\t", index=False)
    said = verdict_of("section", image_adds="the image adds +0.045 (-0.039 to +0.054)", winner="context_serial")
    said["protocols"]["section"]["default"] = "context_serial"
    values = {name: value for name, value in SCORES.items() if name != "autoencoder"} | {"context_serial": 0.65}
    markup = part(rows_of("section", values), said, registration=str(table))
    words = Page(markup).words
    assert "the image adds +0.045 (−0.039 to +0.054)" in words
    assert "to be serial to measured ones" in words
    assert "A1 A2 turned by −12 degrees, 5 µm" in words
    assert EVIL not in markup


def test_maps_of_the_ridge_are_called_so(part):
    words = Page(part(rows_of("block", SCORES), verdict_of("block", paint="floor:ridge_context"))).words
    assert "painted with ridge regression on the same image features as the networks" in words
    assert "which scored higher than the networks inside sections" in words


def test_figures_stand_where_they_were_made(part, tmp_path):
    names = ("scores", "overfit", "autoencoder_reconstruction", "autoencoder_training")
    figures = {name: picture(tmp_path / f"{name}.png") for name in names}
    page = Page(part(rows_of("block", SCORES), verdict_of("block"), figures=figures))
    assert len(page.images) == 4
    assert {f"figure-histology-{name}" for name in names} <= page.anchors
    assert "Pretraining on the images alone" in page.words
    assert "Pretraining" not in Page(part(rows_of("block", SCORES), verdict_of("block"))).words


def test_a_study_without_images_or_without_held_out_spots(part):
    assert part(rows_of("block", SCORES), verdict_of("block"), [facts_for(stain=None)]) == ""
    words = Page(part([], {}, [facts_for(), facts_for("B1", None)])).words
    assert "1 section has no image and took no part" in words
    assert "correlation" not in words


# ----------------------------------------------------------------------------------------------- facts, sample page


def test_facts_of_the_image_come_with_its_warnings(tmp_path):
    folder = make_sample(tmp_path / "A1", "A1")
    stain = tmp_path / "stain.json"
    warned = [
        "stain: one stain only; see /home/somebody/secret/place/x.png",
        "tissue: 30% of the spots lie off the tissue",
    ]
    stain.write_text(json.dumps(STAIN | {"spots_outside": float("nan"), "blurred_rate": None, "warnings": warned}))
    found = facts_of.sample_facts(**paths_of(folder), resolution=1.0, stain=stain)
    assert found["histology"]["n_kept"] == 300
    assert found["histology"]["spots_outside"] is None
    assert found["histology"]["blurred_rate"] is None
    assert found["warnings"][-2:] == ["stain: one stain only; see …/x.png", warned[1]]
    json.dumps(found, allow_nan=False)
    assert facts_of.sample_facts(**paths_of(folder), resolution=1.0)["histology"] is None


def sample_part(captions, tmp_path, stain=STAIN, metrics=""):
    figures = {name: picture(tmp_path / f"{name}.png") for name in ("tiles", "painted", "composite")}
    made = {"painted": "results/demo/samples/A1/histology/expression.zarr", "histology_metrics": metrics}
    return str(sample_page.histology(facts_for(stain=stain), made, figures, captions, {}))


def test_the_sample_page_shows_tiles_maps_and_how_to_open_them(captions, tmp_path):
    metrics = tmp_path / "metrics.tsv"
    write_metrics(rows_of("block", SCORES), metrics)
    page = Page(sample_part(captions, tmp_path, STAIN | {"warnings": [f"stain: one only {EVIL}"]}, str(metrics)))
    assert len(page.images) == 3
    assert EVIL in page.words  # as text
    for words in (
        "Tissue 40 % of the image", "Tiles kept 300 of 1,200", "Blank tiles 70 % of all",
        "Blurred tiles 12 % of those with tissue", "Spots off the tissue 3 %", "The image deserves a look",
        "context default 0.620",  # of this section, not of the study
        'spatialdata.read_zarr("results/demo/samples/A1/histology/expression.zarr")', "napari",
    ):  # fmt: skip
        assert words in page.words, words


def test_the_sample_page_without_scores_or_focus_or_image(captions, tmp_path):
    words = Page(sample_part(captions, tmp_path, STAIN | {"blurred_rate": None, "spots_outside": None})).words
    assert "nothing says what the maps are worth" in words
    assert "Blurred tiles – image too coarse" in words
    assert "off the tissue" not in words.split("The section")[0]
    assert "deserves" not in words
    assert sample_page.histology(facts_for(stain=None), {}, {}, {}, {}) == ""


# --------------------------------------------------------------------------------------------------------- methods


def methods_of(options=None, samples=3, patients=3, stain=STAIN, registered=False):
    config = studies.load({"study": "x", "samples": "none.tsv"})[0].config | {"seed": 3}
    for option, value in (options or {}).items():
        *parents, last = option.split(".")
        place = config["histology"]
        for parent in parents:
            place = place[parent]
        place[last] = value
    facts = [facts_for(f"S{i}", stain) | {"patient": f"P{i % patients}"} for i in range(samples)]
    return methods.methods(config, facts, {"torch": "2.9"}, registered=registered)


def test_methods_say_how_expression_was_predicted():
    text, cited = methods_of()
    for words in (
        "H&E images of three sections", "tiles of 256 µm, overlapping by 32 µm", "below 25 % tissue",
        "footprint of 100 µm", "15 multilayer perceptrons (2 hidden layers of 64 units, dropout 0.2", "weight of 0.25",
        "(a) every section in turn; (b) each of five contiguous blocks", "nearer to the block than 1.5 times",
        "at least 5 % of the training", "marker genes were painted", "PyTorch 2.9",
    ):  # fmt: skip
        assert words in text, words
    for words in ("encoder", "autoencoder", "Serial sections", "inner folds", "leaks"):
        assert words not in text, words
    assert {"Macenko et al., 2009", "Lause et al., 2021", "Spearman, 1910", "Künsch, 1989"} <= set(cited)
    assert "Wang et al., 2004" not in cited
    assert all(name in text for name in cited)
    assert set(cited) <= set(methods.REFERENCES)


def test_methods_follow_the_options():
    text, cited = methods_of(
        {
            "encoder": "pretrained", "pretrain.epochs": 12, "compare": ["autoencoder"], "autoencoder_epochs": 77,
            "protocols": ["across", "random"], "folds": 2, "register": "patient", "footprint_um": 55,
            "paint": ["G1", "G2"], "tune": {"hidden": [32, 128]}, "network.members": 4,
        },
        samples=6, registered=True,
    )  # fmt: skip
    for words in (
        "at most 12 epochs", "channels of this encoder", "four-layer convolutional autoencoder", "at most 77 epochs",
        "(a) the patients in two groups; (b) spots at random, which leaks", "Serial sections of the same patient",
        "footprint of 55 µm", "genes G1, G2 were painted", "hidden (32, 128) were chosen", "4 multilayer",
    ):  # fmt: skip
        assert words in text, words
    assert "blocks of a section, trained" not in text
    assert "Wang et al., 2004" in cited
    text, _ = methods_of({"encoder": "timm:hf-hub:some/model@weights.pt", "buffer_spots": 0}, samples=1)
    assert "pretrained encoder hf-hub:some/model (timm)" in text
    assert "weights.pt" not in text
    assert "holding out each of five contiguous blocks of a section, trained on the rest of it." in text
    text, cited = methods_of({"protocols": []})
    assert "Models were judged" not in text
    assert "Spearman, 1910" not in cited
    assert "H&E" not in methods_of(stain=None)[0]


def test_numbers_in_the_text_are_those_of_the_code():
    from histoweft.histology import context, folds, panels

    text, _ = methods_of()
    assert f"{folds.COMPONENTS} principal components" in text
    assert (context.PER_SPOT, context.LEVELS) == (16, 8)
    assert "one sixteenth" in text
    assert "seven grids each twice as coarse" in text
    assert panels.top_variable.__defaults__[0] == 50
    assert "the 50 genes" in text


# ----------------------------------------------------------------------------------------------------- whole pages


def test_both_pages_from_their_notebooks(tmp_path, repo):
    folder = make_sample(tmp_path / "A1", "A1")
    (tmp_path / "stain.json").write_text(json.dumps(STAIN | {"warnings": [f"stain: one only {EVIL}"]}))
    (tmp_path / "verdict.json").write_text(json.dumps(verdict_of("block", beats=False, meets=False)))
    rows = rows_of("block", SCORES | {"context": 0.4}, gains={"floor:coordinates": (-0.1, -0.2, -0.05)})
    write_metrics(rows, tmp_path / "metrics.tsv")
    config = CONFIG | {"histology": studies.load({"study": "x", "samples": "none.tsv"})[0].config["histology"]}
    inputs = paths_of(folder) | {"top_markers": folder / "top_markers.tsv", "stain": tmp_path / "stain.json"}
    inputs["figures"] = sorted(str(path) for path in (folder / "figures").glob("*.png"))
    inputs["histology_figures"] = [picture(tmp_path / f"{name}.png") for name in ("tiles", "painted", "composite")]
    inputs |= {"painted": "results/demo/expression.zarr", "histology_metrics": tmp_path / "metrics.tsv"}
    notebooks, captions = repo / "workflow" / "notebooks", captions_of(repo)
    sample_page.write(
        inputs, captions, config, "A1", notebook=notebooks / "sample.ipynb", facts_path=tmp_path / "facts.json",
        executed=tmp_path / "A1.ipynb", output=tmp_path / "A1.html",
    )  # fmt: skip
    page = assert_safe_and_whole((tmp_path / "A1.html").read_text(encoding="utf-8"))
    assert len(page.images) == 8
    assert "#expression-from-the-h-e" in page.links
    assert "autoencoder_epochs: 150" in page.words  # among the settings
    assert page.words.index("One only") < page.words.index("Key numbers", page.words.index("One only"))
    study_page.write(
        {
            "facts": [tmp_path / "facts.json"], "pictures": [folder / "figures" / "clusters.png"],
            "metrics": tmp_path / "metrics.tsv", "histology_verdict": tmp_path / "verdict.json",
            "histology_figures": [picture(tmp_path / f"{name}.png") for name in ("scores", "overfit")],
        },
        captions, config, {"A1": {"sample": "A1", "path": "x"}}, notebook=notebooks / "study.ipynb",
        executed=tmp_path / "index.ipynb", output=tmp_path / "index.html", methods_path=tmp_path / "methods.txt",
    )  # fmt: skip
    page = assert_safe_and_whole((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "With blocks inside a section held out, a simple baseline predicts expression better" in page.words
    assert "painted onto every pixel of the H&E" in page.words
    assert "Macenko" in page.words
    assert "rows of single ones are in metrics.tsv" in page.words
