"""Write what the explorer shows of one sample."""

from histoweft.job import run


def main(job):
    """Write the sample's folder of the explorer."""
    from histoweft.explorer.points import TABLES
    from histoweft.explorer.sample import write_sample

    about = write_sample(
        job.output.folder,
        sample=job.wildcards.sample,
        h5ad=job.input.h5ad,
        image=job.there("image"),
        painted=job.there("painted"),
        joint=job.there("joint"),
        wanted=job.params.genes,
        tables={name: job.input[name] for name in TABLES if job.there(name)},
    )
    genes = about["genes"]
    job.log.info("%d points, %d of %d genes", about["points"], genes["count"], genes["of"])
    if job.params.genes == "all" and genes["count"] < genes["of"]:
        job.log.warning("points x genes is above the explorer's bound: only the variable genes are offered")


run(snakemake, main, optional=["image", "painted", "joint", "states", "fates"])
