"""Sections of a dozen spots, of 45, and of one cluster: every step ends with a result, or says that there is none."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import small_cases
from ingest_cases import barcodes
from space_cases import hexagonal

from histoweft.errors import NotComputed
from histoweft.io import CountsFile, CsrWriter


@pytest.fixture(
    params=[(12, False), (45, False), (45, True)], ids=["12 spots", "45 spots", "one cluster"], scope="module"
)
def section(request, tmp_path_factory):
    n, one = request.param
    path = tmp_path_factory.mktemp("small") / "filtered.h5ad"
    counts = sp.csr_matrix(small_cases.expression(small_cases.kinds_of(n, one)))
    xy = hexagonal(8)[:n]
    about = {"sample": "s", "platform": "visium", "mpp": 1.0, "spot_diameter_um": 55.0}
    with CsrWriter(path, counts.shape[1], np.int32) as writer:
        writer.append(counts)
        obs, var = pd.DataFrame(index=barcodes(n)), pd.DataFrame(index=small_cases.GENES)
        writer.finish(obs, var, obsm={"spatial": xy, "spatial_um": xy}, uns={"histoweft": about})
    return path


def features(path):
    from histoweft.expression.features import extract_features

    return extract_features(path, path.with_name("features.h5ad"))


def clusters(path):
    from histoweft.graph.leiden import cluster
    from histoweft.graph.neighbours import neighbour_graph

    features(path)
    with CountsFile(path.with_name("features.h5ad")) as file:
        return cluster(neighbour_graph(file.obsm("X_pca"))[0], file.obs_names)


def markers(path):
    from histoweft.expression.markers import marker_panel, rank_markers

    return marker_panel(rank_markers(path, clusters(path)["leiden"]))


def variable(path):
    from histoweft.space import graph, svg

    with CountsFile(path) as counts:
        place = graph.read_section(counts)
        return svg.variable_genes(counts, graph.spatial_graph(place)[1], place.xy)


def domains(path):
    from histoweft.space import domains, views

    tissue = views.read_tissue({"s": path})
    return domains.find_domains(tissue, domains.chosen_number(domains.estimate_number(tissue), None))


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("step", [features, clusters, markers, variable, domains])
def test_a_step_gives_a_result_or_says_why_not(section, step):
    try:
        found = step(section)
    except NotComputed:
        return
    assert found is not None
