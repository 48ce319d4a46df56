"""Sentences of the Methods paragraph on the atlas, cell types and space."""

from __future__ import annotations

from typing import Any, Protocol

from histoweft.report.html import plain


class Text(Protocol):
    """Where sentences go; see `methods`."""

    def say(self, sentence: str) -> None:
        """Add a sentence."""

    def cite(self, *names: str) -> str:
        """Return a citation and remember it."""


_HELD_OUT = {
    "random": "voxels at random",
    "block": "contiguous blocks of voxels with a buffer of {buffer} voxels",
    "hemisphere": "one half of the organ",
}


def atlas(text: Text, options: dict[str, Any]) -> None:
    """Say how the voxel atlas was modelled and judged."""
    model = {
        "residual": "a network around principal components of the training voxels, which gives way to these components "
        "where they are better on validation voxels",
        "reference": "a variational autoencoder with position heads, as published (Spatial-VAE)",
    }[options["model"]]
    text.say(
        f"Expression and position of the voxels of an atlas ({plain(options['voxel_um'])} µm) were learned by {model}, "
        f"on at most {options['n_genes']:,} genes most variable over training voxels and with a latent of at most "
        f"{options['latent']} dimensions."
    )
    ways = [_HELD_OUT[name].format(buffer=plain(options["buffer_voxels"])) for name in options["protocols"]]
    text.say(
        f"Held out were {'; '.join(ways)} (folds: {options['folds']}); beside the model stand principal components "
        "of equal dimension, and ridge regression and nearest neighbours on them for the position."
    )


def annotation(text: Text, options: dict[str, Any], deconvolved: bool) -> None:
    """Say how cell types were transferred."""
    models = list(dict.fromkeys([options["model"], *options["compare"]]))
    text.say(
        f"Cell types were transferred from a labelled reference by {' and '.join(models)} on "
        f"{options['n_components']} components of variable genes that reference and samples share, with probabilities "
        f"calibrated on held-out reference cells ({text.cite('Guo et al., 2017')}), conformal sets of "
        f"{100 * (1 - options['alpha']):.3g} % coverage and a refusal of cells farther from every type than "
        f"{100 * (1 - options['unknown_rate']):.3g} % of the known ones."
    )
    if deconvolved:
        text.say(
            "Proportions of types in spots were estimated with a Poisson model of the counts that allows for "
            f"differences between platforms (after {text.cite('Cable et al., 2022')}), or by non-negative least "
            "squares where these erred less on spots mixed from reference cells."
        )


def space(text: Text, options: dict[str, Any], sections: int) -> None:
    """Say how the geometry of the tissue was analysed."""
    text.say(
        "Spatially variable genes were found by Moran's I with exact permutation moments and by a covariance test "
        f"({text.cite('Zhu et al., 2021')}); neighbourhood enrichment and ligand-receptor scores between groups were "
        "compared with the exact moments of their permutation distributions "
        f"({text.cite('Efremova et al., 2020')}), and ligands beside receptors with a null that keeps each gene's own "
        "spatial structure and takes the make-up of the tissue out."
    )
    joint = " of all sections together" if sections > 1 else ""
    domains, niches = options["domains"], options["niches"]
    number = f"{domains['n']} domains" if domains["n"] else "an estimated number of domains"
    method = {
        "consensus": "a consensus of Gaussian mixtures on 72 spatially averaged views of the expression",
        "smoothed_pca": "k-means on principal components averaged over neighbours",
        "leiden": "Leiden on principal components, blind to space",
    }[domains["method"]]
    text.say(
        f"Domains{joint} are those of {method}, with {number}; niches are clusters of the composition of "
        f"{niches['neighbours']} neighbours."
    )
