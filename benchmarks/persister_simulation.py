"""Persisters, rare populations and patients on simulated cells, with what must not be found.

    python benchmarks/persister_simulation.py [effects|null|no_rare|rare|patients|demo ...]

Cells are drawn by `histoweft.states.simulate`: persisters cycle less and hold fewer counts, types differ in the
programmes' genes, and each programme is co-expressed whatever the state. `demo` draws the demo's sections without any
persister. All parts run when none is named. One process, a few minutes a part.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow" / "lib"))

from histoweft.graph.leiden import as_igraph, leiden  # noqa: E402
from histoweft.graph.neighbours import neighbour_graph  # noqa: E402
from histoweft.io import CountsFile, CsrWriter  # noqa: E402
from histoweft.linalg import pca  # noqa: E402
from histoweft.metrics import area_under_curve  # noqa: E402
from histoweft.normalise import dispersion_table, normalise  # noqa: E402
from histoweft.states import contrast, cycle, persister, rare, scores, signatures, simulate  # noqa: E402

PROGRAMMES = ("antioxidant_gpx4", "fatty_acid_oxidation", "diapause", "chromatin_kdm5a")
TARGET = 1e4
TABLE = signatures.read_signatures(sorted((REPOSITORY / "resources" / "signatures").glob("*.tsv")))


def draw(**planted):
    """Draw one patient's cells."""
    return simulate.draw_cells(TABLE, PROGRAMMES, ("s_phase", "g2m_phase"), **planted)


def find_persisters(path, genes, kinds, n_sets=200):
    """Return persisters, totals, mean of the programmes' genes, and GPX4, from written counts."""
    panel = signatures.match(TABLE, genes, 5)
    chosen = panel.pick(PROGRAMMES)
    with CountsFile(path) as counts:
        about = scores.moments(counts, TARGET)
        weights = sp.hstack([cycle.contrast(about.mean, panel.members(name)) for name in signatures.CYCLE])
        values = sp.vstack([part for _, part in scores.normalised(counts, about.totals, TARGET)], format="csr")
        barred = np.concatenate([panel.members(name) for name in signatures.CYCLE])
        found = persister.find(
            scores.normalised(counts, about.totals, TARGET), about, chosen.weights, barred,
            [(values @ weights).toarray(), kinds], np.ones(counts.n_obs, dtype=bool), n_sets=n_sets, fdr=0.05,
        )  # fmt: skip
    raised = np.unique(chosen.weights.indices[chosen.weights.data > 0])
    single = values[:, genes.get_loc("GPX4")].toarray().ravel()
    return found, about.totals, np.asarray(values[:, raised].mean(axis=1)).ravel(), single


def patient(folder, n_sets=200, **planted):
    """Draw one patient's cells and find the persisters; return what was found, the truth, and the floors."""
    cells = draw(**planted)
    simulate.write(cells, folder / "cells.h5ad")
    kinds, _ = persister.composition(None, cells.truth["cell_type"], cells.truth["cell_type"])
    found, totals, mean, single = find_persisters(folder / "cells.h5ad", cells.genes, kinds, n_sets)
    return found, cells.truth["persister"].to_numpy(), {"mean": mean, "gpx4": single, "low_depth": -totals}


def effects(folder):
    """Area under the curve, precision and recall over effect and share."""
    rows = []
    for effect in (2.0, 1.5, 1.0, 0.75, 0.5, 0.35):
        for share in (0.01, 0.03, 0.05):
            for seed in range(4):
                found, truth, floors = patient(folder, n=3_000, share=share, effect=effect, seed=seed)
                called = found.called
                rows.append(
                    {
                        "effect": effect, "share": share, "joint": area_under_curve(truth, found.score),
                        **{name: area_under_curve(truth, values) for name, values in floors.items()},
                        "recall": called[truth].mean(), "called": called.sum(),
                        "false": (called & ~truth).sum(),
                    }
                )  # fmt: skip
    table = pd.DataFrame(rows).groupby(["effect", "share"], sort=False).mean()
    print("area under the curve, recall and calls; means over 4 patients of 3,000 cells")
    print(table.round(3).to_string())


def null(folder):
    """Calls where no programme is raised, though the persisters cycle less and hold fewer counts."""
    called, low = [], []
    for seed in range(40):
        found, _, _ = patient(folder, n=2_000, share=0.03, effect=0.0, seed=seed)
        called.append(int(found.called.sum()))
        low.append((found.p <= 0.05).mean())
    said = f"{np.sum(np.array(called) > 0)} with a call, {np.sum(called)} of {40 * 2_000} cells called"
    print(f"null: 40 patients of 2,000 cells: {said}; share of p at most 0.05: {np.mean(low):.4f}")


def search_rare(cells, false_positive_rate=0.05):
    """Return rare groups and the smallest cluster; components free of cycle and depth, as the workflow has them."""
    values = normalise(cells.counts, TARGET)
    plain = values.copy()
    plain.data = np.expm1(plain.data)
    mean = np.asarray(plain.mean(axis=0)).ravel()
    table = dispersion_table(mean, np.asarray(plain.multiply(plain).mean(axis=0)).ravel() - mean**2)
    top = np.argsort(-table["dispersions_norm"].fillna(-np.inf).to_numpy(), kind="stable")[:400]
    points = pca([values[:, top]], len(top), 30).project(values[:, top])
    clusters = leiden(as_igraph(neighbour_graph(points, 15)[0]))
    panel = signatures.match(TABLE, cells.genes, 5)
    log_mean = np.asarray(values.mean(axis=0)).ravel()
    weights = sp.hstack([cycle.contrast(log_mean, panel.members(name)) for name in signatures.CYCLE])
    depth = np.log(np.asarray(cells.counts.sum(axis=1)).ravel())
    basis = persister.design([depth, (values @ weights).toarray()])
    points = persister.residuals(points, basis, np.ones(len(depth), dtype=bool))
    codes = rare.states(clusters, points, max(30, int(0.05 * len(points))))
    learned = rare.learn_null(points, codes, 15, 10, 0.05, 20)
    found = rare.find(neighbour_graph(points, 15)[0], learned, 10, 0.05, false_positive_rate)
    flagged = np.zeros(len(points), dtype=bool)
    for group in found.groups:
        flagged[group.members] = True
    return flagged, rare.smallest_cluster(clusters)


def no_rare(_):
    """Samples in which a rare population is found though none is planted."""
    samples = 20
    wrong = [search_rare(draw(n=1_500, share=0.0, effect=0.0, seed=1_000 + seed))[0] for seed in range(samples)]
    cells = np.mean([flagged.mean() for flagged in wrong])
    some = np.sum([flagged.any() for flagged in wrong])
    print(f"rare, none planted: {some} of {samples} samples with any (5 % stated); {cells:.3%} of cells")


def rare_populations(_):
    """Recall and false positives of planted rare populations, beside the smallest cluster."""
    rows = []
    for share in (0.005, 0.01, 0.02):
        for seed in range(4):
            drawn = draw(n=2_000, share=0.0, effect=0.0, rare_share=share, seed=seed)
            truth = drawn.truth["rare"].to_numpy()
            row = {"share": share}
            for name, flagged in zip(("isolation", "smallest_cluster"), search_rare(drawn)):
                row |= {f"{name}: recall": flagged[truth].mean(), f"{name}: false": flagged[~truth].mean()}
            rows.append(row)
    print("rare, planted; means over 4 samples of 2,000 cells")
    print(pd.DataFrame(rows).groupby("share").mean().round(4).to_string())


def patients(folder):
    """P-values of cohorts in which treatment does nothing, and in which it does."""
    from scipy.stats import kstest

    rng = np.random.default_rng(0)
    pools = {}
    for name, mean in (("usual", 0.03), ("raised", 0.06)):
        shares = np.clip(rng.beta(4, 4 / mean - 4, 48), 0.001, 0.3)
        pools[name] = np.array(
            [
                patient(folder, 50, n=600, share=share, effect=1.5, seed=2_000 + seed)[0].called.mean()
                for seed, share in enumerate(shares)
            ]
        )
    names = [f"P{number}" for number in range(16)]
    arms = dict(zip(names, ["untreated"] * 8 + ["treated"] * 8))

    def p_value(values):
        shares = pd.Series(values, index=names)
        return contrast.compare(shares, dict(zip(names, names)), arms, ["untreated", "treated"])["p"]

    nulls = [p_value(rng.choice(pools["usual"], 16, replace=False)) for _ in range(300)]
    hits = [
        p_value(np.r_[rng.choice(pools["usual"], 8, replace=False), rng.choice(pools["raised"], 8, replace=False)])
        for _ in range(300)
    ]
    test, small, hit = kstest(nulls, "uniform"), np.mean(np.array(nulls) <= 0.05), np.mean(np.array(hits) <= 0.05)
    print(
        f"patients: 300 cohorts of 8 + 8 without an effect: Kolmogorov-Smirnov p {test.pvalue:.3f}, "
        f"{small:.3f} of p at most 0.05; persisters doubled: {hit:.2f}"
    )


def demo(folder):
    """Calls in the demo's sections when no cell persists."""
    from histoweft.simulate.study import simulate_study

    for effect in (0.0, 1.8):
        said = []
        study = simulate_study(0, persister_effect=effect, images=False)
        genes = pd.Index(study.genes.symbol)
        for name, section in study.sections.items():
            with CsrWriter(folder / "demo.h5ad", section.counts.shape[1], np.int32) as writer:
                writer.append(section.counts)
                writer.finish(pd.DataFrame(index=section.barcode), pd.DataFrame(index=genes))
            shares = [section.truth[column] for column in section.truth if column.startswith("prop_")]
            found, *_ = find_persisters(folder / "demo.h5ad", genes, np.column_stack(shares))
            said.append(f"{name} {found.called.sum()}")
        print(f"demo, persister effect {effect:g}: calls {', '.join(said)}")


PARTS = {
    "effects": effects,
    "null": null,
    "no_rare": no_rare,
    "rare": rare_populations,
    "patients": patients,
    "demo": demo,
}


def main(names):
    """Run the parts named."""
    for name in names or PARTS:
        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder))
        print(f"({name}: {time.time() - start:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
