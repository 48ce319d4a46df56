"""Draw one sample's states, on tissue where it has positions."""

from histoweft.job import run


def main(job):
    """Write all pictures."""
    import json

    from histoweft.io import CountsFile, read_table
    from histoweft.states import figures

    facts = json.loads(open(job.input.facts, encoding="utf-8").read())
    with CountsFile(job.input.filtered) as counts:
        table = read_table(job.input.states, counts.obs_names)
        umap = read_table(job.input.umap, counts.obs_names).to_numpy()
        place = figures.read_place(counts, umap, job.input.get("image"))
    figures.persisters_figure(place, table, facts, job.output.persisters)
    figures.signatures_figure(place, table, facts, job.output.signatures)
    figures.rare_figure(place, umap, table, facts, job.output.rare)


run(snakemake, main)
