"""The run as an RO-Crate: what was read, what was made, by which code, with which settings.

A Workflow Run Crate (https://w3id.org/ro/wfrun/workflow/0.5, with the jobs as Provenance Run Crate describes them) on
RO-Crate 1.1: one JSON-LD file in the folder of the results that names every file with its sha256.
"""

from __future__ import annotations

import base64
import csv
import datetime
import hashlib
import json
import mimetypes
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import histoweft
from histoweft.download import sha256
from histoweft.io import atomic
from histoweft.provenance import versions
from histoweft.report.digests import Digest, Digests, files_below, manifest
from histoweft.report.html import portable_values
from histoweft.report.records import JobRecord, jobs_behind, read_records

METADATA = "ro-crate-metadata.json"
FOLDER = "provenance"
"""Folder beside it: config, sheet, Snakefile, lock files and the digests of the code."""

CACHE = Path(".snakemake/histoweft-sha256.json")

CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"

FORMATS = {
    ".h5ad": "application/x-hdf5",
    ".h5": "application/x-hdf5",
    ".parquet": "application/vnd.apache.parquet",
    ".npz": "application/zip",
    ".npy": "application/octet-stream",
    ".pt": "application/zip",
    ".tsv": "text/tab-separated-values",
    ".ipynb": "application/x-ipynb+json",
    ".yaml": "application/yaml",
    ".jsonl": "application/jsonl",
    ".gz": "application/gzip",
    ".smk": "text/plain",
}
"""Media types that Python does not know, or not everywhere."""

Entity = dict[str, Any]


@dataclass(frozen=True)
class Workflow:
    """The code of the run.

    Parameters
    ----------
    repository
        Folder with the Snakefile, ``workflow/`` and ``envs/``.
    commit
        Its git commit, with a word when files differ from it; empty without git.
    command
        How the run was started; empty where it is not known.
    """

    repository: Path
    commit: str = ""
    command: str = ""


def write(
    crate: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    config: Mapping[str, Any],
    targets: Sequence[str],
    workflow: Workflow,
    registry: Mapping[str, str] | None = None,
    records: Sequence[JobRecord] | None = None,
    cache: str | os.PathLike = CACHE,
) -> dict[str, int]:
    """Write the crate's metadata and the folder of small files that go with it.

    Parameters
    ----------
    crate, folder
        Where to; temporary names are fine, files are named as they will be in ``results/<study>/``.
    config
        Completed config.
    targets
        What the run was for: the last outputs.
    workflow
        The code.
    registry
        sha256 to url of registered downloads.
    records
        Jobs on record; read from Snakemake's folder when None.
    cache
        File that keeps digests between runs.

    Returns
    -------
    dict
        How many ``inputs``, ``outputs`` and ``jobs`` the crate names, how many inputs are ``gone`` since they were
        read, and ``bytes_read`` for the digests.
    """
    root = Path("results", str(config["study"]))
    jobs = jobs_behind(targets, read_records() if records is None else records)
    digests = Digests(cache)
    _write_folder(Path(folder), config, workflow, digests)
    made = _results(root, targets, jobs, digests)
    given, gone = _inputs(root, jobs, made, config, workflow.repository, digests, registry or {})
    settings = _settings(Path(folder), _main_entity(workflow, jobs))
    digests.save()
    graph = [
        *_roots(config, made, given, settings, jobs, gone),
        *_code(workflow, jobs),
        *_run(config, targets, made, given, jobs, workflow.command),
        *settings,
        *_unique([*given.values(), *made.values()]),
    ]
    with atomic(crate) as partial:
        text = json.dumps({"@context": CONTEXT, "@graph": graph}, indent=1, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8")
    counts = {"inputs": len(given), "outputs": len(made), "jobs": len(jobs), "gone": len(gone)}
    return counts | {"bytes_read": digests.bytes_read}


# ---------------------------------------------------------------------------------------------------------- files


def encoding(name: str) -> str:
    """Return the media type of a file by its name."""
    suffix = Path(name).suffix.lower()
    return FORMATS.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def file_entity(identifier: str, name: str, digest: Digest) -> Entity:
    """Return a file of the crate."""
    return {
        "@id": identifier,
        "@type": "File",
        "name": name,
        "contentSize": str(digest.size),
        "encodingFormat": encoding(name),
        "sha256": digest.sha256,
    }


def _results(root: Path, targets: Sequence[str], jobs: Sequence[JobRecord], digests: Digests) -> dict[str, Entity]:
    """Return path -> entity of what the jobs made below the folder of the results, and of the targets."""
    paths = dict.fromkeys([*(output for job in jobs for output in job.outputs), *targets])
    found = {}
    for path in paths:
        if Path(path).is_relative_to(root) and Path(path).exists():
            name = Path(path).relative_to(root).as_posix()
            store = Path(path).is_dir()
            found[path] = _store(name, path, digests) if store else file_entity(quote(name), name, digests.of(path))
    return found


def _store(name: str, path: str | os.PathLike, digests: Digests) -> Entity:
    """Return a folder that is one output: how many files, and one digest of them all."""
    files = {file.relative_to(path).as_posix(): digests.of(file) for file in files_below(path)}
    return {
        "@id": f"{quote(name)}/",
        "@type": "Dataset",
        "name": name,
        "description": f"A store of {len(files)} files; sha256 is of their sha256sum listing, sorted by name.",
        "contentSize": str(sum(digest.size for digest in files.values())),
        "sha256": hashlib.sha256(manifest(files).encode()).hexdigest(),
    }


def _inputs(
    root: Path,
    jobs: Sequence[JobRecord],
    made: Mapping[str, Entity],
    config: Mapping[str, Any],
    repository: Path,
    digests: Digests,
    registry: Mapping[str, str],
) -> tuple[dict[str, Entity], list[str]]:
    """Return path -> entity of what the jobs read from outside of the results and of the workflow; and what is gone."""
    own = {(repository / part).resolve() for part in ("workflow", "envs", "Snakefile")}
    found, gone = {}, []
    for path in dict.fromkeys(path for job in jobs for path in job.inputs):
        place = Path(path)
        if path in made or place.is_relative_to(root):
            continue
        if not place.exists():
            gone.append(_as_given(place, config))
            continue
        if own & {place.resolve(), *place.resolve().parents}:
            continue
        for file in files_below(place) if place.is_dir() else [place]:
            digest = digests.of(file)
            entity = file_entity(content_address(digest), _as_given(file, config), digest)
            if digest.sha256 in registry:
                entity["url"] = registry[digest.sha256]
            found[str(file)] = entity
    return found, gone


def registered(path: str | os.PathLike) -> dict[str, str]:
    """Return sha256 to url of the data registry; empty where there is none."""
    if not Path(path).is_file():
        return {}
    with open(path, encoding="utf-8", newline="") as stream:
        return {row["sha256"]: row["url"] for row in csv.DictReader(stream, delimiter="\t")}


def content_address(digest: Digest) -> str:
    """Return an address of a content that says nothing about the machine it lay on (RFC 6920)."""
    encoded = base64.urlsafe_b64encode(bytes.fromhex(digest.sha256)).decode().rstrip("=")
    return f"ni:///sha-256;{encoded}"


def _as_given(path: Path, config: Mapping[str, Any]) -> str:
    """Return a path as the sheet or the config named it: below the data root, or as it is."""
    root = Path(str(config.get("data_root", "."))).expanduser()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _write_folder(folder: Path, config: Mapping[str, Any], workflow: Workflow, digests: Digests) -> None:
    """Write config, sheet, Snakefile, lock files and the digests of the code."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_dump(portable_values(dict(config)), sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(settings, encoding="utf-8")
    sheet = Path(str(config.get("samples") or ""))
    if sheet.is_file():
        shutil.copyfile(sheet, folder / f"samples{sheet.suffix.lower()}")
    shutil.copyfile(workflow.repository / "Snakefile", folder / "Snakefile")
    (folder / "envs").mkdir(exist_ok=True)
    for lock in sorted((workflow.repository / "envs").glob("*.lock.txt")):
        shutil.copyfile(lock, folder / "envs" / lock.name)
    code = {}
    for part in ("Snakefile", "workflow", "envs"):
        place = workflow.repository / part
        for file in files_below(place) if place.is_dir() else [place]:
            if file.suffix != ".pyc":
                code[file.relative_to(workflow.repository).as_posix()] = digests.of(file)
    (folder / "workflow.sha256").write_text(manifest(code), encoding="utf-8")


def _settings(folder: Path, main: Entity) -> list[Entity]:
    """Return the entities of the small files, under the names they will have; `main` goes with the Snakefile."""
    about = {
        "config.yaml": "The config with every default filled in",
        "Snakefile": "The index of the workflow",
        "workflow.sha256": "Digest of every source file of the workflow; sha256sum --check reads it",
    }
    found = []
    for file in files_below(folder):
        name = file.relative_to(folder).as_posix()
        digest = Digest(sha256(file), file.stat().st_size)
        entity = file_entity(quote(f"{FOLDER}/{name}"), f"{FOLDER}/{name}", digest)
        what = "The sample sheet as it was given" if name.startswith("samples.") else "Pinned packages of a step"
        entity["description"] = about.get(name, what)
        found.append(entity | main if name == "Snakefile" else entity)
    return found


# -------------------------------------------------------------------------------------------------------- entities


def _ref(identifier: str) -> dict[str, str]:
    return {"@id": identifier}


def _refs(entities: Sequence[Entity]) -> list[dict[str, str]]:
    return [_ref(identifier) for identifier in dict.fromkeys(entity["@id"] for entity in entities)]


def _unique(entities: Sequence[Entity]) -> list[Entity]:
    """Return each identifier once; files of one content under several names are one entity with all of them."""
    found: dict[str, Entity] = {}
    for entity in entities:
        first = found.setdefault(entity["@id"], dict(entity))
        if entity["name"] != first["name"]:
            first["alternateName"] = sorted({*first.get("alternateName", []), entity["name"]})
    return list(found.values())


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _roots(
    config: Mapping[str, Any],
    made: Mapping[str, Entity],
    given: Mapping[str, Entity],
    settings: Sequence[Entity],
    jobs: Sequence[JobRecord],
    gone: Sequence[str],
) -> list[Entity]:
    """Return the descriptor, the root and the profiles."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    title = str(config.get("title") or config["study"])
    words = f"Results of the study {config['study']} by Histoweft {histoweft.__version__}."
    if not jobs:
        words += " Snakemake kept no records of its jobs, so inputs and intermediate files are not listed."
    if gone:
        words += f" Read, but no longer there and so without digest: {', '.join(gone)}."
    descriptor = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": _ref("./"),
        "conformsTo": [_ref("https://w3id.org/ro/crate/1.1"), _ref(list(PROFILES)[-1])],
    }
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": title,
        "description": words,
        "datePublished": now,
        "conformsTo": [_ref(profile) for profile in PROFILES],
        "mainEntity": _ref(f"{FOLDER}/Snakefile"),
        "hasPart": _refs([*settings, *given.values(), *made.values()]),
        "mentions": [_ref("#run"), *(_ref(_job_id(at)) for at in range(len(jobs)))],
    }
    profiles = [
        {"@id": at, "@type": "CreativeWork", "name": name, "version": at.rpartition("/")[2]}
        for at, name in PROFILES.items()
    ]
    return [descriptor, root, *profiles]


def _code(workflow: Workflow, jobs: Sequence[JobRecord]) -> list[Entity]:
    """Return the workflow's language, the rules that ran, and the software of this very job."""
    installed = versions(["snakemake", "numpy", "scipy", "pandas", "anndata", "torch", "pytorch-lightning"])
    software = [
        {"@id": f"#software-{name}", "@type": "SoftwareApplication", "name": name, "version": version}
        for name, version in {"python": platform.python_version(), **installed}.items()
    ]
    language = {
        "@id": SNAKEMAKE,
        "@type": "ComputerLanguage",
        "name": "Snakemake",
        "url": _ref("https://snakemake.readthedocs.io"),
        "version": installed.get("snakemake", ""),
    }
    scripts = {path.stem: path for path in (workflow.repository / "workflow" / "scripts").glob("*/*.py")}
    rules = []
    for name in dict.fromkeys(job.rule for job in jobs):
        script = scripts.get(name)
        where = {"description": script.relative_to(workflow.repository).as_posix()} if script else {}
        rules.append({"@id": f"#rule-{name}", "@type": "SoftwareApplication", "name": name} | where)
    return [language, *software, *rules]


def _main_entity(workflow: Workflow, jobs: Sequence[JobRecord]) -> Entity:
    """Return what makes the Snakefile the main entity of the crate."""
    entity: Entity = {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": "Histoweft",
        "version": histoweft.__version__,
        "programmingLanguage": _ref(SNAKEMAKE),
        "hasPart": [_ref(f"#rule-{name}") for name in dict.fromkeys(job.rule for job in jobs)],
    }
    if workflow.commit:
        sha, _, changed = workflow.commit.partition(",")
        entity["identifier"] = sha
        entity["creativeWorkStatus"] = "with changes that are not committed" if changed else "as committed"
    return entity


def _job_id(at: int) -> str:
    return f"#job-{at + 1}"


def _entities_of(path: str, known: Mapping[str, Entity]) -> list[Entity]:
    """Return the entities of an input: a file, a store, or the files of a folder."""
    if path in known:
        return [known[path]]
    return [entity for file, entity in known.items() if file.startswith(f"{path}/")] if os.path.isdir(path) else []


def _run(
    config: Mapping[str, Any],
    targets: Sequence[str],
    made: Mapping[str, Entity],
    given: Mapping[str, Entity],
    jobs: Sequence[JobRecord],
    command: str,
) -> list[Entity]:
    """Return the run, and each of its jobs with what it read and made."""
    run: Entity = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"Histoweft on {config['study']}",
        "actionStatus": _ref("http://schema.org/CompletedActionStatus"),
        "instrument": _ref(f"{FOLDER}/Snakefile"),
        "object": [_ref(f"{FOLDER}/config.yaml"), *_refs(list(given.values()))],
        "result": _refs([made[path] for path in targets if path in made]),
    }
    if command:
        run["description"] = command
    if jobs:
        run["startTime"] = _when(min(job.started for job in jobs))
        run["endTime"] = _when(max(job.ended for job in jobs))
    known = {**given, **made}
    actions = []
    for at, job in enumerate(jobs):
        read = [entity for path in job.inputs for entity in _entities_of(path, known)]
        actions.append(
            {
                "@id": _job_id(at),
                "@type": "CreateAction",
                "name": job.rule,
                "instrument": _ref(f"#rule-{job.rule}"),
                "startTime": _when(job.started),
                "endTime": _when(job.ended),
                "object": _refs(read),
                "result": _refs([made[path] for path in job.outputs if path in made]),
            }
        )
    return [run, *actions]
