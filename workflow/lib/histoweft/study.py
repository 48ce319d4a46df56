"""A study as the rules see it: its options, its samples and where their files lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from histoweft import config as options
from histoweft import validation
from histoweft.errors import Faults

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
    """

    config: dict
    samples: dict[str, dict] = field(default_factory=dict)

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
    study = Study(completed)
    if not faults:
        _locate_atlas(study)
    sheet = completed.get("samples")
    if not isinstance(sheet, str):
        return study, faults
    if not sheet:
        if not completed.get("atlas", {}).get("input"):
            hint = "Name a sample sheet, or the input of a stage that needs none."
            faults.add(f"{source}: samples", "nothing to work on", "a sample sheet, or atlas.input", hint)
        elif not faults:
            _check_meaning(study, source, faults)
        return study, faults
    rows, sheet_faults = validation.read_sheet(Path(sheet), options.load_schema("samples"))
    faults.extend(sheet_faults)
    for row in rows:
        study.samples.setdefault(str(row["sample"]), _located(row, str(completed.get("data_root", "."))))
    if not faults:
        _check_meaning(study, source, faults)
    return study, faults


def is_url(path: str) -> bool:
    """Return whether a sheet's path is to be downloaded."""
    return path.split("://", 1)[0].lower() in ("http", "https") and "://" in path


def _located(row: dict, root: str) -> dict:
    """Return the row with relative paths placed below the data root."""
    row = dict(row)
    for column in ("path", "image", "labels", "positions"):
        value = row[column]
        if not value or is_url(value) or (column == "image" and value == "none"):
            continue
        if column == "labels" and "/" not in value and "." not in value and row["platform"] in ("h5ad", "scrna"):
            continue  # the name of an observation column
        row[column] = str(Path(root).expanduser() / value)
    return row


def _locate_atlas(study: Study) -> None:
    """Place the relative paths of the atlas below the data root; what the study makes itself is where it is."""
    root = Path(str(study.config.get("data_root", "."))).expanduser()
    for name in ATLAS_PATHS:
        path = study.config["atlas"][name]
        if path and not Path(path).is_relative_to(study.results()):
            study.config["atlas"][name] = str(root / Path(path).expanduser())


def _check_meaning(study: Study, source: str, faults: Faults) -> None:
    """Check what a schema cannot say."""
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
