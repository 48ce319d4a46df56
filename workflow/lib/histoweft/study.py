"""A study as the rules see it: its options, its samples and where their files lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from histoweft import config as options
from histoweft import validation
from histoweft.errors import Faults, nearest

#: Options of the section atlas that are paths below the data root.
ATLAS_PATHS = ("input", "genes", "positions", "annotation", "structures")


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

    def is_simulated(self, sample: str) -> bool:
        """Return whether a sample is one that the study simulates itself."""
        return Path(self.samples[sample]["path"]).is_relative_to(self.simulated)


def load(config: dict, source: str = "config") -> tuple[Study, Faults]:
    """Complete and check a config and its sample sheet.

    Parameters
    ----------
    config
        The config as Snakemake read it.
    source
        How messages call the config.

    Returns
    -------
    study
        Usable only when there are no faults.
    faults
        Everything wrong with config and sheet, together.
    """
    schema = options.load_schema("config")
    completed = options.complete(config, schema)
    faults = options.check(completed, schema, source)
    _check_homes(completed, source, faults)
    study = Study(completed)
    if not faults:
        _locate_atlas(study)
        _locate_bulk(study)
    sheet = completed.get("samples")
    if not isinstance(sheet, str):
        return study, faults
    if not sheet:
        if not (completed.get("atlas", {}).get("input") or completed.get("cohort", {}).get("bulk")):
            hint = "Name a sample sheet, or the input of a stage that needs none."
            faults.add(f"{source}: samples", "nothing to work on", "a sample sheet, atlas.input or cohort.bulk", hint)
        elif not faults:
            _check_meaning(study, source, faults)
        return study, faults
    rows, sheet_faults = validation.read_sheet(Path(sheet), options.load_schema("samples"))
    faults.extend(sheet_faults)
    for row in rows:
        study.samples.setdefault(str(row["sample"]), _located(row, str(completed.get("data_root", "."))))
    _exclude(study, source, faults)
    if not faults:
        _check_meaning(study, source, faults)
    return study, faults


def _exclude(study: Study, source: str, faults: Faults) -> None:
    """Take out the samples that the config leaves out."""
    listed = study.config.get("exclude")
    for name in listed if isinstance(listed, list) else []:
        if study.samples.pop(str(name), None) is None:
            faults.add(f"{source}: exclude", repr(name), "a sample of the sheet", nearest(str(name), study.samples))
        else:
            study.excluded.append(str(name))
    if study.excluded and not study.samples:
        faults.add(f"{source}: exclude", "every sample of the sheet", "at least one sample that stays")


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


def _located(row: dict, root: str) -> dict:
    """Return the row with relative paths placed below the data root."""
    row = dict(row)
    for column in ("path", "image", "labels", "positions"):
        value = row[column]
        if not value or is_url(value) or (column == "image" and value == "none"):
            continue
        if column == "labels" and "/" not in value and "." not in value and row["platform"] in ("h5ad", "scrna"):
            continue  # the name of an observation column
        row[column] = str(_home(root) / value)
    return row


def _locate_atlas(study: Study) -> None:
    """Place the relative paths of the atlas below the data root; what the study makes itself is where it is."""
    root = _home(study.config["data_root"])
    for name in ATLAS_PATHS:
        path = study.config["atlas"][name]
        if path and not Path(path).is_relative_to(study.results()):
            study.config["atlas"][name] = str(root / _home(path))


def _locate_bulk(study: Study) -> None:
    """Place the relative paths of bulk cohorts below the data root; options left out take their default."""
    root = _home(study.config["data_root"])
    for entry in study.config["cohort"]["bulk"]:
        entry.update({name: entry.get(name, "") for name in ("id", "response")})
        for name in ("expression", "clinical"):
            entry[name] = str(root / _home(entry[name]))


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


def _check_meaning(study: Study, source: str, faults: Faults) -> None:
    """Check what a schema cannot say."""
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
