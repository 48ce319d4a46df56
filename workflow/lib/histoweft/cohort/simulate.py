"""Cohorts with a planted niche effect and a planted target, or with none: what the stage must find, or must not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.cohort.pseudobulk import Places, Sums, add_up, log_cpm, matrix

TARGET = "TARGET1"
LIGAND, RECEPTOR = "LIGAND1", TARGET
NICHE = "3"
PAIR = f"{LIGAND}^{RECEPTOR}"


@dataclass
class Simulated:
    """A cohort.

    Attributes
    ----------
    table
        As `features.by_patient` makes it.
    expression
        patients x genes, log scale.
    counts, places
        Pseudobulk, where spots were simulated; else empty.
    """

    table: pd.DataFrame
    expression: pd.DataFrame
    counts: pd.DataFrame
    places: pd.DataFrame


def _frame(patients: pd.Index, response: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "patient": patients, "cohort": "simulated", "condition": "", "sections": 1, "spots": 200,
            "response": np.where(response == 1, "R", "NR"),
        },
        index=patients,
    )  # fmt: skip


def features_only(
    n: int = 24, niches: int = 6, others: int = 14, effect: float = 0.0, genes: int = 0, seed: int = 0
) -> Simulated:
    """Simulate features of patients, half of them responders.

    Parameters
    ----------
    n
        Patients.
    niches, others
        Shares of niches (Dirichlet), and further features (normal, in correlated pairs).
    effect
        Difference of log abundance of niche `NICHE`, in standard deviations: more of it without response.
    genes
        Genes that know nothing of the response.
    seed
        Of all draws.
    """
    rng = np.random.default_rng(seed)
    patients = pd.Index([f"S{i:02d}" for i in range(1, n + 1)])
    response = rng.permutation(np.arange(n) % 2)
    level = rng.normal(0, 0.6, (n, niches))
    level[:, int(NICHE) - 1] += 0.6 * effect * (response == 0)
    share = np.exp(level)
    share /= share.sum(axis=1, keepdims=True)
    free = rng.normal(size=(n, others))
    free[:, 1::2] = 0.6 * free[:, ::2][:, : free[:, 1::2].shape[1]] + 0.8 * free[:, 1::2]
    table = _frame(patients, response)
    table[[f"niche:{i}" for i in range(1, niches + 1)]] = share
    table[[f"signature:s{i}" for i in range(1, others + 1)]] = free
    expression = pd.DataFrame(
        rng.normal(5, 1, (n, genes)).astype(np.float32), index=patients, columns=[f"G{i}" for i in range(genes)]
    )
    return Simulated(table, expression, pd.DataFrame(), pd.DataFrame())


def with_spots(n: int = 24, spots: int = 200, genes: int = 150, effect: float = 1.0, seed: int = 0) -> Simulated:
    """Simulate spots: persister cells in a niche that is larger without response, and a gene and a pair that mark them.

    Parameters
    ----------
    n, spots
        Patients, and spots of each.
    genes
        Of which the first two are the planted pair.
    effect
        Scales what is planted: size of the niche (log odds 1.2 without response), its share of persister cells, fold of
        `TARGET` in them (log 1.2), of `LIGAND` in the niche, and the pair's co-location there. 0: none of it.
    seed
        Of all draws.
    """
    rng = np.random.default_rng(seed)
    patients = pd.Index([f"S{i:02d}" for i in range(1, n + 1)])
    response = rng.permutation(np.arange(n) % 2)
    names = pd.Index([TARGET, LIGAND, *(f"G{i}" for i in range(genes - 2))])
    base = rng.lognormal(1.0, 0.8, genes)
    table, sums, places = _frame(patients, response), {}, Places()
    for patient, answer in zip(patients, response):
        level = rng.normal(0, 0.4, 4)
        level[int(NICHE) - 1] += 1.2 * effect * (answer == 0)
        niche = rng.choice(4, spots, p=np.exp(level) / np.exp(level).sum())
        inside = niche == int(NICHE) - 1
        persister = rng.random(spots) < np.where(inside, 0.2 + 0.3 * min(effect, 1), 0.2)
        log_fold = np.zeros((spots, genes))
        log_fold[:, 0] += 1.2 * effect * persister + 0.6 * effect * inside
        log_fold[:, 1] += 1.0 * effect * inside
        rate = base * np.exp(log_fold + rng.normal(0, 0.15, genes) + rng.normal(0, 0.3, (spots, 1)))
        counts = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
        groups = {
            "niche": pd.Series((niche + 1).astype(str), dtype=object),
            "state": pd.Series(np.where(persister, "persister", "other"), dtype=object),
        }
        sums[patient] = add_up([(slice(0, spots), counts)], names, groups)
        places.add(sums[patient])
        _pairs(places, rng, effect)
        table.loc[patient, [f"niche:{i}" for i in range(1, 5)]] = np.bincount(niche, minlength=4) / spots
        table.loc[patient, "state:persister"] = persister.mean()
        table.loc[patient, f"interaction:{PAIR}"] = 0.3 * effect * (answer == 0) + rng.normal(0, 0.15)
        table.loc[patient, "interaction:G0^G1"] = rng.normal(0, 0.15)
    table = table.astype({c: float for c in table if ":" in c})
    counts = matrix({patient: Sums(one.total) for patient, one in sums.items()})
    return Simulated(table, log_cpm(counts), counts, places.table())


def _pairs(places: Places, rng: np.random.Generator, effect: float) -> None:
    """Add a patient's co-location of the pairs in the niche."""
    difference = pd.Series({PAIR: 0.6 * effect + rng.normal(0, 0.3), "G0^G1": rng.normal(0, 0.3)})
    places.add_difference("niche_pair", NICHE, difference)
