"""Files with names that a shell, a format string or a wildcard would take apart are read like any others."""

import shutil

NAMES = ("a b's $(touch pwned); `touch pwned` &é.h5ad", "-rf %s * [x].h5ad", 'say "yes" > #1.h5ad')


def test_a_file_of_any_name_is_read(checkout, demo):
    source = demo.root / "results" / "demo" / "samples" / "P1_pre" / "counts.h5ad"
    lines = ["sample\tplatform\tpath"]
    for number, name in enumerate(NAMES):
        (checkout.root / "data").mkdir(exist_ok=True)
        shutil.copy(source, checkout.root / "data" / name)
        cell = '"' + f"data/{name}".replace('"', '""') + '"'
        lines.append(f"s{number}\th5ad\t{cell}")
    (checkout.root / "samples.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = checkout.configure("study.yaml", "study: odd\nsamples: samples.tsv\n")
    targets = [f"results/odd/samples/s{number}/counts.h5ad" for number in range(len(NAMES))]
    checkout.run("--configfile", config, "--", *targets)
    assert all((checkout.root / path).is_file() for path in targets)
    assert not (checkout.root / "pwned").exists()
    assert sorted(path.name for path in (checkout.root / "data").iterdir()) == sorted(NAMES)


def test_a_name_that_snakemake_would_fill_in_is_refused(checkout):
    rows = []
    for sample, name in (("a", "say <results>.h5ad"), ("b", "{sample}.h5ad")):
        (checkout.root / name).write_bytes(b"")
        rows.append(f"{sample}\th5ad\t{name}\n")
    (checkout.root / "samples.tsv").write_text("sample\tplatform\tpath\n" + "".join(rows))
    config = checkout.configure("study.yaml", "study: odd\nsamples: samples.tsv\n")
    code, text = checkout.run("-n", "--configfile", config, check=False)
    assert code != 0
    assert "line 2: found say <results>.h5ad; expected a path without <...> and {...}. Rename it" in text
    assert "line 3: found {sample}.h5ad" in text
