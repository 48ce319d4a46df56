"""Simulated cohorts of 24 patients: a planted niche effect and target must be found, and nothing where there is none.

    .venv/bin/python benchmarks/cohort_null.py [--nulls 100] [--targets 50] [--permutations 39] [--effects 2 0]

Prints shares of simulations; the level of every test is 0.05.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "lib"))

import numpy as np
from scipy.stats import binomtest

from histoweft.cohort import contrasts, differential, groups, prediction, simulate, targets
from histoweft.cohort.features import feature_columns
from histoweft.cohort.performance import auroc, permutation_p

OPTIONS = {"positive": "R", "negative": "NR", "baseline": ""}


def compared(cohort):
    ((rows, who),) = groups.compared(cohort.table, OPTIONS)
    return rows, who, contrasts.compare(rows[feature_columns(rows)], who)


def predicted(rows, who, permutations, seed):
    """Return AUROC and permutation p of the elastic net, one patient held out at a time."""
    task = prediction.make_task(who.label, who.stratum, rows[feature_columns(rows)], None, 100)
    _, rounds = prediction.outer_folds(task, 5, 1, seed)
    found = prediction.predict(task, "elastic_net", rounds, 4, permutations, seed)
    seen = auroc(task.positive == 1, found.score, np.zeros(len(task.positive)))
    return seen, permutation_p(seen, found.permuted)


def ranked_targets(cohort):
    rows, who, differences = compared(cohort)
    genes = differential.log_values(cohort.expression.loc[rows.index], who)
    sources = dict.fromkeys(("places", "genes", "differences"), "simulated")
    return targets.find(cohort.places, genes, differences.assign(first="R"), None, True, sources)[0]


def share(name, hits):
    hits = np.asarray(hits, dtype=bool)
    ci = binomtest(int(hits.sum()), len(hits)).proportion_ci()
    print(f"{name}: {hits.mean():.3f} [{ci.low:.3f}, {ci.high:.3f}] of {len(hits)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nulls", type=int, default=100)
    parser.add_argument("--targets", type=int, default=50)
    parser.add_argument("--permutations", type=int, default=39)
    parser.add_argument("--effects", type=float, nargs="*", default=[2.0, 0.0], help="of the niche, in SD")
    arguments = parser.parse_args()
    start = time.monotonic()
    for effect in arguments.effects:
        said = f"niche effect {effect:g} SD"
        niche, any_feature, single, p_values, aurocs = [], [], [], [], []
        for seed in range(arguments.nulls):
            rows, who, found = compared(simulate.features_only(effect=effect, seed=seed))
            named = found.set_index("feature")
            niche.append(named.loc[f"niche:{simulate.NICHE}", "q"] < 0.05)
            any_feature.append((found["q"] < 0.05).any())
            single.append((found["p"] < 0.05).mean())
            seen, p = predicted(rows, who, arguments.permutations, seed)
            aurocs.append(seen)
            p_values.append(p)
        share(f"{said}: the niche is found (q < 0.05)", niche)
        share(f"{said}: any feature is found (q < 0.05)", any_feature)
        print(f"{said}: mean share of features with p < 0.05: {np.mean(single):.3f}")
        share(f"{said}: response predicted (permutation p <= 0.05)", np.array(p_values) <= 0.05)
        print(f"{said}: mean AUROC {np.mean(aurocs):.3f}, standard deviation {np.std(aurocs):.3f}")
    for effect in (1.0, 0.0) if arguments.targets else ():
        first, called = [], []
        for seed in range(arguments.targets):
            table = ranked_targets(simulate.with_spots(effect=effect, seed=seed))
            first.append(table["target"].iloc[0] == simulate.TARGET and bool(table["called"].iloc[0]))
            called.append(table["called"].any())
        share(f"planted target {effect:g}: it is first and called", first)
        share(f"planted target {effect:g}: anything is called", called)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
