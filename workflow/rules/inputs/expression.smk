# What the expression stage takes from others.


def sample_image(wildcards):
    """Return the working image of a sample that has one, else nothing."""
    if not discoveries[wildcards.sample].image:
        return []
    return rules.ingest_image.output.image.format(sample=wildcards.sample)
