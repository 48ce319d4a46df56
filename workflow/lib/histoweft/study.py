"""A study as the rules see it: its options, its samples and where their files lie."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histoweft import config as options
from histoweft import configfile, validation
from histoweft.errors import Faults, nearest
from histoweft.paths import labels_is_table, plain, resolve

WORKING_MPP = 1.0
"""Um per pixel of working images, where nothing asks for finer ones."""
SAME_SCALE = 1.02
"""Resolutions that differ by less are the same to an encoder."""

#: Options of the section atlas that are paths below the data root.
ATLAS_PATHS = ("input", "genes", "positions", "annotation", "structures")
#: Options that are paths of their own.
OTHER_PATHS = {
    "annotation": ("hierarchy", "query_map", "markers", "orthologs", "gene_sets"),
    "cohort": ("signatures", "compartments", "surface"),
}


@dataclass
class Study:
    """Config and sample sheet, checked and completed.

    Attributes
    ----------
    config
        Completed config.
    samples
        Sample name -> row of the sheet with absolute or working-folder paths.
    excluded
        Samples of the sheet that the config leaves out.
    """

    config: dict
    samples: dict[str, dict] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return the study's name."""
        return str(self.config.get("study", ""))

    def results(self, *parts: str) -> str:
        """Return a path under the study's results; braces stay for Snakemake's wildcards."""
        return "/".join(["results", self.name, *parts])

    @property
    def simulated(self) -> str:
        """Return the folder the demo tissue is written to."""
        return self.results("simulated")

    @property
    def encoder_um(self) -> float | None:
        """Return the um per pixel that a ready-made image encoder expects; None without one."""
        histology = self.config["histology"]
        wanted = histology["enabled"] and str(histology["encoder"]).startswith("timm:")
        return float(histology["encoder_um_per_px"]) if wanted else None

    def is_simulated(self, sample: str) -> bool:
        """Return whether a sample is one that the study simulates itself."""
        return Path(self.samples[sample]["path"]).is_relative_to(self.simulated)


def load(config: dict, source: str = "config", files: Iterable[str | Path] = ()) -> tuple[Study, Faults]:
    """Complete and check a config and its sample sheet.

    Parameters
    ----------
    config
        The config as Snakemake read it.
    source
        How messages call the config.
    files
        The files that it was read from; names that YAML took for numbers are taken from there as they are written.

    Returns
    -------
    study
        Usable only when there are no faults.
    faults
        Everything wrong with config and sheet, together.
    """
    schema = options.load_schema("config")
    files = list(files)
    written, repeats = configfile.as_written(map(Path, files))
    if files:
        config = configfile.restored(config, schema, written)
    completed = options.complete(config, schema)
    sheet = completed.get("samples")
    rows, sheet_faults = [], Faults()
    if isinstance(sheet, str) and sheet:
        completed["samples"] = sheet = str(resolve(sheet)) if resolve(sheet) != Path(sheet) else sheet
        rows, sheet_faults = validation.read_sheet(Path(sheet), options.load_schema("samples"))
    names = _names_of(rows)
    completed = _recognised(completed, schema, names)
    faults = repeats
    faults.extend(options.check(completed, schema, source, names))
    _check_homes(completed, source, faults)
    study = Study(completed)
    if not faults:
        _locate_options(study)
    if not isinstance(sheet, str):
        return study, faults
    if not sheet:
        if not (completed.get("atlas", {}).get("input") or completed.get("cohort", {}).get("bulk")):
            hint = "Name a sample sheet, or the input of a stage that needs none."
            faults.add(f"{source}: samples", "nothing to work on", "a sample sheet, atlas.input or cohort.bulk", hint)
        elif not faults:
            _check_meaning(study, source, faults)
        return study, faults
    faults.extend(sheet_faults)
    for row in rows:
        study.samples.setdefault(str(row["sample"]), _located(row, str(completed.get("data_root", "."))))
    _exclude(study, source, faults)
    if not faults:
        _check_meaning(study, source, faults)
    return study, faults


def _names_of(rows: list[dict]) -> Callable[[tuple], Collection[str]]:
    """Return a function from the place of an option to the names of the sheet that it may speak of."""
    columns: dict[str, list[str]] = {}
    for row in rows:
        for column, value in (row | row["clinical"]).items():
            if isinstance(value, str) and value and column not in (*validation.PATHS, "platform", "subset"):
                columns.setdefault(column, []).append(value)

    def names(place: tuple) -> Collection[str]:
        if place[:1] == ("exclude",) or place[:2] == ("trajectory", "samples"):
            return dict.fromkeys(columns.get("sample", ()))
        if place[:2] == ("states", "contrast") and len(place) > 2:
            return dict.fromkeys(columns.get(str(place[2]), ()))
        return dict.fromkeys(value for values in columns.values() for value in values)

    return names


def _recognised(value: Any, part: dict, names: Callable[[tuple], Collection[str]], place: tuple = ()) -> Any:
    """Return a config in which a number is the sheet's name that is written the same, where no other can be meant."""
    if isinstance(value, dict):
        known, others = part.get("properties", {}), part.get("additionalProperties")
        others = others if isinstance(others, dict) else {}
        return {key: _recognised(one, known.get(key, others), names, (*place, key)) for key, one in value.items()}
    if isinstance(value, list):
        return [_recognised(one, part.get("items", {}), names, (*place, n)) for n, one in enumerate(value)]
    if isinstance(value, str) and plain(value) != value and plain(value) in names(place):
        return plain(value)  # the sheet's names are composed, too
    if part.get("type") == "string" and isinstance(value, int | float):
        if options.writings(value, names(place)) == [str(value)]:
            return str(value)
    return value


def _exclude(study: Study, source: str, faults: Faults) -> None:
    """Take out the samples that the config leaves out."""
    listed = study.config.get("exclude")
    told = {fault.where for fault in faults.items}
    for number, name in enumerate(listed if isinstance(listed, list) else []):
        if f"{source}: exclude[{number}]" in told:
            continue  # the check of the config has said so
        if study.samples.pop(str(name), None) is None:
            faults.add(f"{source}: exclude", repr(name), "a sample of the sheet", _nearest_name(name, study.samples))
        else:
            study.excluded.append(str(name))
    if study.excluded and not study.samples:
        faults.add(f"{source}: exclude", "every sample of the sheet", "at least one sample that stays")


def _nearest_name(name: str, names: Iterable[str]) -> str:
    """Return the name that may be meant: one of the same number, else one that is written much the same."""
    same = [one for one in names if validation.meaning(one) == validation.meaning(name)]
    return f"Did you mean {same[0]!r}?" if len(same) == 1 else nearest(name, names)


def is_url(path: str) -> bool:
    """Return whether a sheet's path is to be downloaded."""
    return path.split("://", 1)[0].lower() in ("http", "https") and "://" in path


def _home(path: str) -> Path:
    """Return a path with ``~`` filled in, where there is such a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _check_homes(config: dict, source: str, faults: Faults) -> None:
    """Refuse ``~name`` of a user that this machine does not know."""
    atlas = config.get("atlas")
    places = {"data_root": config.get("data_root")}
    places |= {f"atlas.{name}": atlas.get(name) for name in ATLAS_PATHS} if isinstance(atlas, dict) else {}
    for option, path in places.items():
        if isinstance(path, str) and str(_home(path)).startswith("~"):
            faults.add(f"{source}: {option}", repr(path), "a folder that this machine knows", "Write the path in full.")


NO_FILE = {"image": ("none",), "alignment": ("none", "identity")}
"""Words of the sheet's columns that are no path."""


def _located(row: dict, root: str) -> dict:
    """Return the row with relative paths placed below the data root, under the names that they have on disk.

    ``read_as`` says where such a name is written otherwise.
    """
    row = dict(row)
    for column in validation.PATHS:
        value = row[column]
        if not value or is_url(value) or value.lower() in NO_FILE.get(column, ()):
            continue
        if column == "labels" and _is_obs_column(row):
            continue
        place = _home(root) / value
        row[column] = str(resolve(place))
        if row[column] != str(place):
            row.setdefault("read_as", {})[column] = (
                f"{row[column]!a}, as it is called on disk; the sheet has the same name in other characters ({value!a})"
            )
    return row


def _is_obs_column(row: dict) -> bool:
    """Return whether the labels of a row are a column of its h5ad or loom; the url of one may end in anything."""
    unknown = is_url(row["path"]) and row["platform"] in ("h5ad", "scrna")
    return not labels_is_table(row["labels"], ".h5ad" if unknown else row["path"])


def _locate_options(study: Study) -> None:
    """Place relative paths of options below the data root; names are those on disk."""
    _locate_atlas(study)
    _locate_bulk(study)
    study.config["registry"] = _on_disk(study.config["registry"])
    for stage, names in OTHER_PATHS.items():
        group = study.config[stage]
        group.update({name: _on_disk(group[name]) for name in names})
    states = study.config["states"]
    states["signatures"] = [_on_disk(path) for path in states["signatures"]]


def _on_disk(path: str) -> str:
    """Return a path under the name that it has on disk; as it is written where that is the same."""
    found = resolve(path)
    return path if not path or found == Path(path) else str(found)


def _locate_atlas(study: Study) -> None:
    """Place the relative paths of the atlas below the data root; what the study makes itself is where it is."""
    root = _home(study.config["data_root"])
    for name in ATLAS_PATHS:
        path = study.config["atlas"][name]
        if path and not Path(path).is_relative_to(study.results()):
            study.config["atlas"][name] = str(resolve(root / _home(path)))


def _locate_bulk(study: Study) -> None:
    """Place the relative paths of bulk cohorts below the data root; options left out take their default."""
    root = _home(study.config["data_root"])
    for entry in study.config["cohort"]["bulk"]:
        entry.update({name: entry.get(name, "") for name in ("id", "response")})
        for name in ("expression", "clinical"):
            entry[name] = str(resolve(root / _home(entry[name])))


def _check_cohort(study: Study, source: str, faults: Faults) -> None:
    """Check the options of the cohort stage that depend on one another."""
    cohort = study.config["cohort"]
    if cohort["model"] not in cohort["models"]:
        hint = "Add it to cohort.models, or choose another."
        faults.add(f"{source}: cohort.model", cohort["model"], f"one of {', '.join(cohort['models'])}", hint)
    seen: set[str] = set()
    for number, entry in enumerate(cohort["bulk"]):
        where = f"{source}: cohort.bulk[{number}]"
        if entry["cohort"] in seen:
            faults.add(f"{where}.cohort", entry["cohort"], "a name used once")
        seen.add(entry["cohort"])
        for name in ("expression", "clinical"):
            path = Path(entry[name])
            if not path.is_file():
                folder = path.parent
                near = nearest(path.name, [p.name for p in folder.iterdir()] if folder.is_dir() else [])
                hint = near or "Relative paths start from data_root."
                faults.add(f"{where}.{name}", f"{path}, which does not exist", "a table", hint)


def _choose_resolution(study: Study, source: str, faults: Faults) -> None:
    """Fill in the working resolution where it is left open, and refuse one that an encoder cannot use."""
    ingest, expected = study.config["ingest"], study.encoder_um
    if ingest["working_mpp"] is None:
        ingest["working_mpp"] = min(WORKING_MPP, expected or WORKING_MPP)
    elif expected is not None and ingest["working_mpp"] > expected * SAME_SCALE:
        faults.add(
            f"{source}: ingest.working_mpp",
            f"{ingest['working_mpp']:g} um per pixel",
            f"{expected:g} or less, which {study.config['histology']['encoder']} expects",
            "Leave it out, and images are kept fine enough; or say in histology.encoder_um_per_px what the encoder was "
            "trained at.",
        )


def _check_meaning(study: Study, source: str, faults: Faults) -> None:
    """Check what a schema cannot say."""
    _choose_resolution(study, source, faults)
    _check_cohort(study, source, faults)
    expression = study.config["expression"]
    if expression["resolution"] not in expression["resolutions"]:
        faults.add(
            f"{source}: expression.resolution",
            expression["resolution"],
            f"one of expression.resolutions: {', '.join(map(str, expression['resolutions']))}",
        )
    features = expression["features"]
    if features["n_components"] >= features["n_top"]:
        faults.add(
            f"{source}: expression.features.n_components",
            features["n_components"],
            f"fewer than expression.features.n_top ({features['n_top']})",
        )
    batch = study.config["integration"]["batch"]
    values = {row[batch] for row in study.samples.values()}
    if len(study.samples) > 1 and len(values) == 1:
        faults.add(
            f"{source}: integration.batch",
            f"{batch}, which is {values.pop()!r} for every sample",
            "a column of the sheet that tells the sections apart",
            "Use sample.",
        )
