"""Write the explorer's page over the folders of its samples."""

from histoweft.job import run


def main(job):
    """Write the page and what it is told of the study."""
    from histoweft import gaps
    from histoweft.explorer import site

    samples = [site.read_about(folder) for folder in job.input.folders if not gaps.of(folder)]
    about = site.study_about(samples, job.params.study, job.params.title)
    site.write_site(about, web=job.input.web, page=job.output.page, study=job.output.study)


run(snakemake, main, optional=["folders"])
