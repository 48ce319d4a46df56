"""The crate of a run: read back by the reference library, digests against hashlib."""

import base64
import hashlib
import json
import os
import warnings

import pytest

from histoweft.report import crate, digests, records


def put(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def record(folder, output, rule, inputs, log, started=1000.0, ended=1010.0, **more):
    """Write a record as Snakemake does, long names in pieces."""
    name = base64.b64encode(output.encode()).decode()
    pieces = [name[i : i + 200] for i in range(0, len(name), 200)]
    path = folder.joinpath(*(f"@{piece}" for piece in pieces[:-1]), pieces[-1])
    facts = {"rule": rule, "input": inputs, "log": [log], "starttime": started, "endtime": ended, "incomplete": False}
    put(path, json.dumps(facts | more).encode())


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return a small finished study: two jobs that count, one whose result nobody reads."""
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "code"
    put(repository / "Snakefile", b"rule all: pass\n")
    put(repository / "workflow" / "report" / "caption.rst", b"words")
    put(repository / "envs" / "step.lock.txt", b"numpy==1\n")
    put(tmp_path / "data" / "a" / "matrix.h5", b"counts")
    put(tmp_path / "data" / "same.h5", b"counts")
    put(tmp_path / "sheet.tsv", b"sample\tpath\na\ta\n")
    results = tmp_path / "results" / "s"
    put(results / "samples" / "a b" / "counts.h5ad", b"filtered counts")
    put(results / "maps.zarr" / "0" / "0", b"pixels")
    put(results / "maps.zarr" / ".snakemake_timestamp", b"")
    put(results / "page.html", b"<html>")
    put(results / "old.tsv", b"left by an earlier config")
    known = tmp_path / ".snakemake" / "metadata"
    counts, page = "results/s/samples/a b/counts.h5ad", "results/s/page.html"
    record(known, counts, "ingest", ["data/a", "data/same.h5"], "logs/a.log")
    record(known, "results/s/maps.zarr", "ingest", ["data/a", "data/same.h5"], "logs/a.log")
    caption = str(repository / "workflow" / "report" / "caption.rst")
    record(known, page, "report", [counts, caption], "logs/b.log", 1020, 1030)
    record(known, "results/s/old.tsv", "gone", ["data/a"], "logs/c.log")
    record(known, "results/s/half.tsv", "dying", [], "logs/d.log", incomplete=True)
    put(known / "not base64", b"{}")
    config = {"study": "s", "title": "A study", "samples": "sheet.tsv", "data_root": str(tmp_path / "data")}

    def write(**options):
        work = crate.Workflow(repository, "c0ffee, with changes that are not committed", "histoweft --cores 2")
        options = {"config": config, "targets": [page], "workflow": work, **options}
        return crate.write(results / crate.METADATA, results / crate.FOLDER, **options)

    return results, write


def by_id(results):
    graph = json.loads((results / crate.METADATA).read_text())["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph), "an identifier stands twice"
    return found


def test_every_file_has_its_digest_and_its_size(study):
    results, write = study
    told = write()
    assert told == {"inputs": 2, "outputs": 3, "jobs": 2, "gone": 0, "bytes_read": told["bytes_read"]}
    found = by_id(results)
    counts = found["samples/a%20b/counts.h5ad"]
    assert counts["sha256"] == hashlib.sha256(b"filtered counts").hexdigest()
    assert counts["contentSize"] == "15"
    assert counts["encodingFormat"] == "application/x-hdf5"
    listing = hashlib.sha256(b"pixels").hexdigest() + "  0/0\n"
    assert found["maps.zarr/"]["sha256"] == hashlib.sha256(listing.encode()).hexdigest()
    assert not any("old.tsv" in name or "half.tsv" in name for name in found)


def test_inputs_are_named_as_given_and_addressed_by_content(study):
    results, write = study
    digest = hashlib.sha256(b"counts")
    write(registry={digest.hexdigest(): "https://example.org/matrix.h5"})
    address = "ni:///sha-256;" + base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
    entity = by_id(results)[address]
    assert entity["name"] == "data/a/matrix.h5"
    assert entity["alternateName"] == ["data/same.h5"]
    assert entity["url"] == "https://example.org/matrix.h5"
    assert "caption.rst" not in json.dumps(by_id(results)["./"])


def test_paths_below_the_data_root_are_relative_to_it(tmp_path):
    config = {"data_root": str(tmp_path)}
    assert crate._as_given(tmp_path / "a" / "b.h5", config) == "a/b.h5"
    assert crate._as_given(tmp_path.parent / "b.h5", config) == str(tmp_path.parent / "b.h5")


def test_jobs_say_what_they_read_made_and_when(study):
    results, write = study
    write()
    found = by_id(results)
    first, second = found["#job-1"], found["#job-2"]
    assert (first["name"], second["name"]) == ("ingest", "report")
    assert [one["@id"] for one in first["result"]] == ["maps.zarr/", "samples/a%20b/counts.h5ad"]
    assert second["object"] == [{"@id": "samples/a%20b/counts.h5ad"}]
    assert first["startTime"] == "1970-01-01T00:16:40+00:00"
    run = found["#run"]
    assert run["endTime"] == "1970-01-01T00:17:10+00:00"
    assert run["description"] == "histoweft --cores 2"
    assert run["result"] == [{"@id": "page.html"}]
    main = found["provenance/Snakefile"]
    assert main["identifier"] == "c0ffee"
    assert main["creativeWorkStatus"] == "with changes that are not committed"


def test_the_reference_library_reads_it_and_every_reference_has_an_end(study):
    from rocrate.rocrate import ROCrate

    results, write = study
    write()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = ROCrate(results)
    assert read.mainEntity.id == "provenance/Snakefile"
    assert {"maps.zarr/", "page.html", "provenance/samples.tsv"} <= {entity.id for entity in read.data_entities}
    found = by_id(results)
    elsewhere = ("https://w3id.org/ro/crate", "https://w3id.org/workflowhub", "http://schema.org", "https://snakemake")

    def ends(value):
        if isinstance(value, dict):
            if set(value) == {"@id"}:
                assert value["@id"] in found or value["@id"].startswith(elsewhere), value
            for part in value.values():
                ends(part)
        elif isinstance(value, list):
            for part in value:
                ends(part)

    ends(list(found.values()))


def test_the_folder_holds_settings_and_digests_of_the_code(study, tmp_path):
    results, write = study
    write()
    folder = results / "provenance"
    assert (folder / "samples.tsv").read_bytes() == (tmp_path / "sheet.tsv").read_bytes()
    assert (folder / "envs" / "step.lock.txt").read_text() == "numpy==1\n"
    line = f"{hashlib.sha256(b'numpy==1' + chr(10).encode()).hexdigest()}  envs/step.lock.txt"
    assert line in (folder / "workflow.sha256").read_text().splitlines()
    assert str(tmp_path) not in (folder / "config.yaml").read_text()


def test_without_records_the_targets_remain_and_the_crate_says_so(study):
    results, write = study
    told = write(records=[])
    assert (told["inputs"], told["outputs"], told["jobs"]) == (0, 1, 0)
    found = by_id(results)
    assert "kept no records" in found["./"]["description"]
    assert "startTime" not in found["#run"]


def test_an_input_that_is_gone_is_named(study, tmp_path):
    results, write = study
    (tmp_path / "data" / "same.h5").unlink()
    told = write()
    assert (told["inputs"], told["gone"]) == (1, 1)
    assert "no longer there and so without digest: data/same.h5." in by_id(results)["./"]["description"]


def test_without_git_there_is_no_commit(study, tmp_path):
    results, write = study
    write(workflow=crate.Workflow(tmp_path / "code"))
    main = by_id(results)["provenance/Snakefile"]
    assert "identifier" not in main
    assert "creativeWorkStatus" not in main


def test_a_second_crate_reads_only_what_has_changed(study, tmp_path):
    results, write = study
    assert write()["bytes_read"] > 0
    assert write()["bytes_read"] == 0
    put(results / "page.html", b"<html>new")
    assert write()["bytes_read"] == len(b"<html>new")
    digest = by_id(results)["page.html"]["sha256"]
    assert digest == hashlib.sha256(b"<html>new").hexdigest()
    (tmp_path / crate.CACHE).write_text("damaged")
    assert write()["bytes_read"] > len(b"<html>new")


def test_digests_tell_files_of_one_size_apart_by_their_time(tmp_path):
    path = tmp_path / "a"
    put(path, b"one")
    known = digests.Digests(tmp_path / "cache.json")
    before = known.of(path)
    known.save()
    put(path, b"two")
    os.utime(path, ns=(1, 1))
    after = digests.Digests(tmp_path / "cache.json").of(path)
    assert after.sha256 == hashlib.sha256(b"two").hexdigest() != before.sha256


def test_files_below_a_folder_without_what_is_no_content(tmp_path):
    put(tmp_path / "b" / "two")
    put(tmp_path / "one")
    put(tmp_path / "b" / digests.TIMESTAMP, b"")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "again").symlink_to(tmp_path / "b")
    assert digests.files_below(tmp_path) == [tmp_path / "b" / "two", tmp_path / "one"]


def test_records_of_long_names_and_of_several_outputs(tmp_path):
    long = "results/" + "x" * 300
    record(tmp_path, long, "r", ["a"], "l.log", 5, 6)
    record(tmp_path, "results/y", "r", ["a"], "l.log", 5, 7)
    (job,) = records.read_records(tmp_path)
    assert job.outputs == [long, "results/y"]
    assert (job.started, job.ended) == (5, 7)
    assert records.read_records(tmp_path / "none") == []


def test_the_registry_gives_urls_by_digest(tmp_path):
    assert crate.registered(tmp_path / "none.tsv") == {}
    put(tmp_path / "r.tsv", b"key\turl\tsha256\tbytes\tlicence\tdescription\nk\thttps://x.org/a\tabc\t\t\t\n")
    assert crate.registered(tmp_path / "r.tsv") == {"abc": "https://x.org/a"}


def test_environments_on_the_page(tmp_path):
    from histoweft.report import run_record

    put(tmp_path / "space.lock.txt", b"# made\nnumpy==1 \\\n    --hash=sha256:0\ntorch[cpu]==2\n")
    put(tmp_path / "dev.lock.txt", b"ruff==1\n")
    (one,) = run_record.environments(tmp_path)
    assert (one["name"], one["packages"]) == ("space", 2)
    page = str(run_record.environment_table([one]))
    assert one["sha256"] in page
    assert run_record.environment_table([]) == ""
    assert "ro-crate-metadata.json" in run_record.crate_note()


def test_the_page_says_what_each_stage_was_trained_on(tmp_path):
    from histoweft.metrics import metric_row, write_metrics
    from histoweft.report import run_record

    rows = [
        metric_row("s", stage, "speed", "m", "all", "block", "seconds", 1.0, note=note)
        for stage, note in (
            ("histology", "device cuda, cpu"), ("atlas", "default; device cuda"), ("annotation", "on device cpu; x"),
            ("space", "a device that is no processor"),
        )
    ]  # fmt: skip
    write_metrics(rows, tmp_path / "metrics.tsv")
    assert run_record.devices(tmp_path / "metrics.tsv") == "cpu (annotation, histology); cuda (atlas, histology)"
    write_metrics([], tmp_path / "metrics.tsv")
    assert run_record.devices(tmp_path / "metrics.tsv") == ""
