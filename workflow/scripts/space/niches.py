"""Find niches in all sections together and compare them between conditions."""

from histoweft.job import run


def main(job):
    """Write niches of every section, what they are made of, and the comparison of conditions."""
    import json

    import pandas as pd

    from histoweft.io import CountsFile, write_table
    from histoweft.space import domain_figures, niches
    from histoweft.space.domains import neighbours_within
    from histoweft.space.graph import read_section
    from histoweft.space.views import nearest

    options, samples = job.params.options, job.params.samples
    filtered = dict(zip(samples, job.input.filtered, strict=True))
    tables = dict(zip(samples, job.input.get("labels", [])))
    labels = niches.read_groups(job.params.labels, filtered, tables, job.input.get("joint"))
    barcodes, near = [], []
    for path in filtered.values():
        with CountsFile(path) as counts:
            near.append(nearest(read_section(counts).xy, options["neighbours"]))
            barcodes.append(counts.obs_names)
    made_of = [niches.composition(a, one, options["neighbours"]) for a, one in zip(near, labels.values())]
    found = niches.find_niches(made_of, [neighbours_within(a) for a in near], options["n"], job.params.seed)
    job.log.info("\n%s", found.stability.to_string(index=False))
    tables = niches.niche_tables(found, dict(zip(samples, barcodes)))
    for path, table in zip(job.output.niches, tables.values(), strict=True):
        write_table(table, path)
    shares = niches.niche_shares(tables)
    compared, notes = niches.compare_conditions(shares, job.params.patients, job.params.conditions, job.params.seed)
    compared.to_csv(job.output.conditions, sep="\t", index=False, float_format="%.5g")
    groups = next(iter(labels.values())).categories
    profiles = pd.DataFrame(found.profiles, index=shares.columns, columns=groups)
    profiles.rename_axis("niche").to_csv(job.output.profiles, sep="\t", float_format="%.5g")
    job.output.notes.write_text(json.dumps({"notes": notes}, indent=1) + "\n", encoding="utf-8")
    domain_figures.profiles_figure(profiles, shares, job.output.figure)


run(snakemake, main)
