"""Find domains in all sections together, spread given labels, and score both where there are expert labels."""

from histoweft.job import run


def main(job):
    """Write domains of every section, the numbers of domains compared, and the scores."""
    from histoweft.gaps import Gap, of
    from histoweft.io import CountsFile, write_table
    from histoweft.metrics import write_metrics
    from histoweft.space import domain_scores, domains, semi, views

    options, seed, samples = job.params.options, job.params.seed, job.params.samples
    paths = job.present("filtered", samples)
    sizes = {}
    for sample, path in paths.items():
        with CountsFile(path) as counts:
            sizes[sample] = counts.n_obs
    small = views.too_few(sizes)
    for reason in small.values():
        job.log.warning("%s", reason)
    paths = {sample: path for sample, path in paths.items() if sample not in small}
    tissue = views.read_tissue(paths, seed=seed)
    numbers = domains.estimate_number(tissue, seed=seed)
    n = domains.chosen_number(numbers, options["n"])
    found = domains.find_domains(tissue, n, seed)
    job.log.info("%d domains; partitions agree to %.2f", n, found.agreement)
    blind = domains.blind_scores(tissue)
    floors = {
        "leiden": domains.leiden_floor(blind, n, seed),
        "smoothed_pca": domains.smoothed_pca_floor(tissue, blind, n, seed),
    }
    tables = domains.domain_tables(tissue, found, floors, options["method"])
    observed = {}
    for sample, path in paths.items():
        with CountsFile(path) as counts:
            observed[sample] = counts.obs()
    if options["semi"]:
        place = domain_scores.semi_place(tissue, found.votes)
        spread = semi.spread_column(place, observed, options["semi"], seed)
        tables = {sample: table.join(spread[sample]) for sample, table in tables.items()}
    for sample, filtered, path in zip(samples, job.input.filtered, job.output.domains, strict=True):
        if sample in tables:
            write_table(tables[sample], path)
        else:
            job.leave_out(path, of(filtered) or Gap(small[sample]))
    truth, notes = domain_scores.expert_labels(observed, tissue.near)
    for note in notes:
        job.log.warning("%s", note)
    rows = []
    if truth:
        runs = domain_scores.partitions_by_seed(tissue, n, range(seed, seed + options["score_seeds"]))
        rows += domain_scores.domain_rows(tissue, runs, truth, job.params.study, options["method"], n)
        rows += domain_scores.semi_rows(tissue, found.votes, truth, job.params.study, seed)
    write_metrics(rows, job.output.metrics)
    numbers.to_csv(job.output.numbers, sep="\t", index=False, float_format="%.6g")


run(snakemake, main, optional=["filtered"])
