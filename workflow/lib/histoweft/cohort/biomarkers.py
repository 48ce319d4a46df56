"""Markers of response: how large, how sure, how often selected, and where in the tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from histoweft.cohort import differential, learners
from histoweft.cohort.contrasts import LEVEL, Groups
from histoweft.cohort.features import feature_columns
from histoweft.cohort.groups import compared
from histoweft.cohort.prediction import Task, make_task
from histoweft.cohort.response import of_patients
from histoweft.cohort.signatures import SIGNATURE

COLUMNS = (
    "rank", "marker", "kind", "effect", "low", "high", "p", "q", "frequency", "cohorts", "heterogeneity", "method",
    "where", "where_effect", "where_q", "source",
)  # fmt: skip

THRESHOLD = 0.75
"""A marker is stable when it is selected in at least this share of the subsamples."""

SHOWN = 500
"""Lines of the table for readers."""

FEWEST_FOR_STABILITY = 4
"""Patients of each group: a half must hold two."""

_MIX, _RATIO = 0.9, 0.25
_PLACES = ("niche", "domain", "type")


def stability(task: Task, subsamples: int, seed: int) -> tuple[pd.Series, int]:
    """Find features that are selected again and again when patients change.

    Parameters
    ----------
    task
        Patients with a known response.
    subsamples
        Half of the patients each, drawn in complementary pairs inside cohort and answer.
    seed
        Of the draw.

    Returns
    -------
    frequency
        Share of subsamples in which a feature is among the `q` largest coefficients of a nearly absolute penalty.
    q
        Chosen so that at most one feature is expected above `THRESHOLD` by chance.

    References
    ----------
    Meinshausen and Buhlmann 2010, J R Stat Soc B 72:417 (E(V) <= q^2 / ((2 threshold - 1) p)); Shah and Samworth 2013,
    J R Stat Soc B 75:55 (complementary pairs).
    """
    rng = np.random.default_rng(seed)
    columns = task.subset(np.arange(len(task.positive)))
    q = max(1, int(np.sqrt((2 * THRESHOLD - 1) * len(columns))))
    # One block: here a gene must have the same chance as a share of cell types, however many of its kind there are.
    X = learners.Scaler(["all"] * len(columns)).fit(task.X[:, columns]).transform(task.X[:, columns])
    weights = np.zeros((len(task.positive), subsamples))
    strata = pd.factorize(pd.Series(task.cohorts).astype(str) + "|" + pd.Series(task.positive).astype(str))[0]
    for number in range(0, subsamples, 2):
        half = np.zeros(len(strata), dtype=bool)
        for stratum in np.unique(strata):
            rows = rng.permutation(np.flatnonzero(strata == stratum))
            # The odd patient goes to either half, else small strata would always lose the same one.
            half[rows[: (len(rows) + rng.integers(2)) // 2]] = True
        weights[half, number] = 1
        if number + 1 < subsamples:
            weights[~half, number + 1] = 1
    labels = np.repeat(task.positive[:, None], subsamples, axis=1)
    settings = np.full(subsamples, _MIX), np.full(subsamples, _RATIO)
    beta, _ = learners.elastic_net(X, labels, learners.balanced(labels, weights), *settings)
    size = np.abs(beta)
    cut = np.sort(size, axis=0)[-q]
    chosen = (size >= cut) & (size > 0)
    return pd.Series(chosen.mean(axis=1), index=task.columns[columns]), q


def rank(
    genes: pd.DataFrame, features: pd.DataFrame, frequency: pd.Series, places: pd.DataFrame, sources: dict[str, str]
) -> pd.DataFrame:
    """Put genes and features into one ranked table.

    Parameters
    ----------
    genes
        See `differential.COLUMNS`.
    features
        See `contrasts.COLUMNS`.
    frequency
        See `stability`; may be empty.
    places
        See `pseudobulk.PLACE_COLUMNS`; may be empty.
    sources
        gene and feature: the tables that lines come from.

    Returns
    -------
    `COLUMNS`: by q, then p, frequency and size of the effect. q is over genes and over features separately.
    """
    first = pd.DataFrame(
        {
            "marker": genes["gene"], "kind": "gene", **{c: genes[c] for c in ("effect", "low", "high", "p", "q")},
            "cohorts": genes["cohorts"], "heterogeneity": genes["heterogeneity"], "method": genes["method"],
            "source": sources["gene"],
        }
    )  # fmt: skip
    second = pd.DataFrame(
        {
            "marker": features["feature"], "kind": "feature",
            **{c: features[c] for c in ("effect", "low", "high", "p", "q")},
            "cohorts": np.nan, "heterogeneity": np.nan, "method": "Hodges-Lehmann, permutation of patients",
            "source": sources["feature"],
        }
    )  # fmt: skip
    parts = [part for part in (first, second) if len(part)]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.concat(parts, ignore_index=True)
    table["frequency"] = table["marker"].map(frequency).astype(float)
    table = table.merge(summits(places), left_on="marker", right_index=True, how="left")
    size = table["effect"].abs()
    order = table.assign(_q=table["q"].fillna(2), _f=-table["frequency"].fillna(0), _p=table["p"].fillna(2), _s=-size)
    table = table.loc[order.sort_values(["_q", "_p", "_f", "_s"], kind="stable").index].reset_index(drop=True)
    table["rank"] = np.arange(1, len(table) + 1)
    return table[list(COLUMNS)]


def summits(places: pd.DataFrame) -> pd.DataFrame:
    """Return, per gene, the niche, domain or cell type in which it stands out most over patients.

    Returns
    -------
    Index: genes; columns where (``niche 3``), where_effect, where_q. The group of largest t, or of largest effect where
    there are too few patients for a t.
    """
    table = places[places["kind"].isin(_PLACES)]
    if table.empty:
        return pd.DataFrame(columns=["where", "where_effect", "where_q"])
    tested = table["t"].notna()
    table = table[tested] if tested.any() else table
    key = table["t"] if tested.any() else table["effect"]
    best = table.loc[key.groupby(table["gene"]).idxmax()].set_index("gene")
    return pd.DataFrame(
        {"where": best["kind"] + " " + best["group"], "where_effect": best["effect"], "where_q": best["q"]}
    )


@dataclass
class Found:
    """What the rule writes.

    Attributes
    ----------
    table
        `COLUMNS`, all genes and features.
    genes
        `differential.COLUMNS`.
    groups
        Who was compared; None where there are no two groups.
    known
        Rows of the groups x genes and features.
    texts, warnings
        For the report.
    """

    table: pd.DataFrame
    genes: pd.DataFrame
    groups: Groups | None
    known: pd.DataFrame
    texts: list[str]
    warnings: list[str]

    def values(self, markers: pd.DataFrame) -> pd.DataFrame:
        """Return the values of markers, rows x markers."""
        return self.known[list(markers["marker"])]


def find(
    table: pd.DataFrame,
    expression: pd.DataFrame,
    counts: pd.DataFrame,
    places: pd.DataFrame,
    differences: pd.DataFrame,
    options: dict,
    seed: int,
) -> Found:
    """Find markers of responders, or of the first two conditions.

    Parameters
    ----------
    table, expression
        See `study.gather_study`.
    counts
        Pseudobulk counts; no rows where there are bulk cohorts only.
    places
        See `pseudobulk.PLACE_COLUMNS`.
    differences
        See `study.differences`.
    options
        positive, negative, baseline, genes, predictors and subsamples of the config's section cohort.
    seed
        Of the subsamples.
    """
    compared_rows = compared(table, options)
    if not compared_rows:
        said = ["No markers: there are no two groups of patients to compare."]
        return Found(rank_nothing(), pd.DataFrame(columns=list(differential.COLUMNS)), None, pd.DataFrame(), [], said)
    rows, groups = compared_rows[0]
    by_patient = rows.index.name == "patient"
    own = of_patients(expression, table, options["baseline"]) if by_patient else expression
    own = own.loc[rows.index]
    known = groups.label.notna()
    pseudobulk = _whole_counts(counts, table, rows, options["baseline"] if by_patient else "")
    genes = differential.compare(own, pseudobulk, groups)
    frequency, warnings = pd.Series(dtype=float), []
    if min(groups.sizes) >= FEWEST_FOR_STABILITY and not groups.pairs:
        task = make_task(groups.label, groups.stratum, rows[feature_columns(rows)], own, options["genes"])
        frequency, _ = stability(task, options["subsamples"], seed)
    else:
        warnings.append(f"Too few patients for stability selection: {FEWEST_FOR_STABILITY} of each group are needed.")
    same = (differences["first"] == groups.first) & (differences["second"] == groups.second)
    sources = {"gene": "cohort/genes.parquet", "feature": "cohort/microenvironment.tsv"}
    ranked = rank(genes, differences[same], frequency, places, sources)
    values = pd.concat([own, rows[feature_columns(rows)]], axis=1)
    texts, more = _in_words(ranked, groups, int(known.sum()))
    return Found(ranked, genes, groups, values, texts, warnings + more)


def drawn(table: pd.DataFrame, top: int) -> pd.DataFrame:
    """Return the markers to draw: the first genes and the first features, half and half where there are both.

    Published signatures are floors of the prediction, no findings of the study, and are left out.
    """
    own = table[~table["marker"].astype(str).str.startswith(SIGNATURE)]
    is_gene = own["kind"] == "gene"
    features = own[~is_gene].head(max(top // 2, top - int(is_gene.sum())))
    return pd.concat([own[is_gene].head(top - len(features)), features]).sort_values("rank")


def rank_nothing() -> pd.DataFrame:
    """Return the table of markers without a line."""
    return pd.DataFrame({name: pd.Series(dtype=object) for name in COLUMNS})


def _whole_counts(counts: pd.DataFrame, table: pd.DataFrame, rows: pd.DataFrame, baseline: str) -> pd.DataFrame | None:
    """Return counts of the rows compared; None where some of them have none (bulk)."""
    if not len(counts) or not counts.index.isin(table.index).all() or len(counts) < len(table):
        return None
    if rows.index.name != "patient":
        return counts.loc[rows.index]
    used = table[table["condition"] == baseline] if baseline else table
    return counts.loc[used.index].groupby(used["patient"].to_numpy()).sum().loc[rows.index]


def _in_words(table: pd.DataFrame, groups: Groups, n: int) -> tuple[list[str], list[str]]:
    genes = table[table["kind"] == "gene"]
    tested = genes[genes["p"].notna()]
    if tested.empty:
        return [], [
            f"Genes are listed by their effect only: {groups.sizes[0]} and {groups.sizes[1]} patients allow no test."
        ]
    sure = tested[tested["q"] < LEVEL]
    stable = table[table["frequency"] >= THRESHOLD]
    named = ", ".join(f"{row.marker} (log2 {row.effect:+.2f}, q {row.q:.2g})" for row in sure.head(3).itertuples())
    texts = [
        f"{groups.first} against {groups.second}: {len(sure)} of {len(tested):,} genes differ (q < {LEVEL}, "
        f"{tested['method'].iloc[0]}, n = {n} patients{f'; first {named}' if named else ''})."
    ]
    listed = ", ".join(stable.sort_values("frequency", ascending=False)["marker"].head(5))
    texts.append(
        f"{len(stable)} markers are selected in {THRESHOLD:.0%} of the halves of the patients or more"
        f"{f' (first {listed})' if listed else ''}; chance alone would select one at most."
    )
    return texts, []
