"""Properties of all readers, over drawn inputs of every platform (see `generators`).

Rows in another order and files encoded in another way give the same ``counts.h5ad``; a damaged file gives faults in
words, or the same result, never another one.

In a usual run each property sees a few examples, the same each time. ``HISTOWEFT_FUZZ_MINUTES=30`` draws new ones for
that long in all, and prints how many each property saw.
"""

import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import damages as d
import generators as g
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from histoweft.errors import InputError
from histoweft.ingest.readers import SampleInput, read, write_counts
from histoweft.io import CountsFile

MINUTES = float(os.environ.get("HISTOWEFT_FUZZ_MINUTES", 0))
settings.register_profile("shared", deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.register_profile("ci", settings.get_profile("shared"), derandomize=True, print_blob=False)
settings.register_profile("long", settings.get_profile("shared"), derandomize=False, print_blob=True)
RAN: dict[str, int] = {}


@pytest.fixture
def explore(request):
    """Return a function that runs a check over a strategy, for a few examples or for this test's share of the time."""

    def run(check, strategy, examples=20):
        name = request.node.name

        @given(strategy)
        def one(case):
            RAN[name] = RAN.get(name, 0) + 1
            check(case)

        until = time.monotonic() + MINUTES * 60 / len(request.session.items)
        known = request.node.get_closest_marker("xfail") is not None  # nobody reads what a known fault shrinks to
        phases = [Phase.generate] if known else [Phase.generate, Phase.shrink]
        profile = settings.get_profile("long" if MINUTES else "ci")
        one = settings(profile, max_examples=30 if MINUTES else examples, phases=phases)(one)
        one()
        while time.monotonic() < until:
            one()

    return run


@pytest.fixture(scope="module", autouse=True)
def told(request):
    """Print how many examples each property saw, after a long run."""
    yield
    if MINUTES:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print("\nexamples of each property:")
            print("\n".join(f"{n:8d}  {name}" for name, n in RAN.items()), f"\n{sum(RAN.values()):8d}  in all")


class Case:
    """A folder of one example; the sheet line it is read by."""

    def __init__(self, truth, encoding):
        self.root = Path(tempfile.mkdtemp(prefix="histoweft_property_"))
        self.truth, self.encoding = truth, encoding
        self.row = g.write(self.root / "in", truth, encoding)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root)

    def read(self):
        """Do what the workflow does, and return what it wrote."""
        out = self.root / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        try:
            write_counts(read(SampleInput("s1", where="samples.tsv, line 2", **self.row)), out / "counts.h5ad")
        except InputError as error:
            if list(out.iterdir()) or not error.faults:
                pytest.fail("a refused sample left a file behind, or named no fault")
            raise
        return result(out / "counts.h5ad")


BARE = (
    "unreadable content", "Traceback", "AssertionError", "KeyError", "object has no attribute", "could not convert",
    "can't open", "Can't ", "codec can't", "out of bounds", "not supported between", "Error tokenizing", "No such file",
    "Expecting ", "Unable to", "unable to", "invalid literal", "NoneType", "dtype(", "Invalid column",
)  # fmt: skip


def in_words(error):
    """Check that each fault says where, what and what else, and is no library's bare message."""
    for fault in error.faults:
        assert fault.where, fault
        assert fault.found, fault
        bare = [word for word in BARE if word in fault.found]
        assert not bare, f"a library's words: {fault}"


def result(path):
    """Return what a counts file holds, in an order of its own."""
    with CountsFile(path) as file:
        obs, var, about = file.obs(), file.var(), file.uns["histoweft"]
        counts = pd.DataFrame(file.matrix().toarray(), index=obs.index.astype(str), columns=var.index.astype(str))
        found = {"counts": counts.sort_index().sort_index(axis=1), "mpp": float(about["mpp"])}
        found["scale"] = float(about["source_image_scale"])
        if "spatial" in file.obsm_names():
            xy = pd.DataFrame(file.obsm("spatial"), index=counts.index, columns=["x", "y"])
            found["xy"] = xy.sort_index()
        if "label" in obs:
            found["labels"] = pd.Series(obs["label"].astype(str).to_numpy(), index=counts.index).sort_index()
        ids = pd.Series(var["gene_id"].astype(str).to_numpy(), index=var.index.astype(str))
        found["ids"] = ids.sort_index()
        found["about"] = {
            "species": about["species"], "spot": round(float(about["spot_diameter_um"]), 6),
            "image": about["image_kind"],
            "warnings": sorted(str(w).split(":")[0] for w in about["warnings"]),
            "dropped": {name: int(n) for name, n in about["dropped"].items()},
        }  # fmt: skip
    return found


def same(found, wanted):
    """Check that everything wanted was found."""
    pd.testing.assert_frame_equal(
        found["counts"], wanted["counts"], check_dtype=False, check_names=False, check_column_type=False,
        check_index_type=False,
    )  # fmt: skip
    for name in ("xy", "labels", "ids"):
        if name in wanted:
            test = pd.testing.assert_frame_equal if name == "xy" else pd.testing.assert_series_equal
            kinds = {"check_index_type": False, "check_names": False}
            test(found[name], wanted[name], rtol=1e-9, atol=1e-6, check_dtype=False, **kinds)
    for name in {"mpp", "scale"} & set(wanted):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-3)
    if "about" in wanted:
        assert str(found["about"]) == str(wanted["about"])


# What violates a property today, with the reason; nothing is left here for long.
KNOWN_BY_REASON: dict[str, list[str]] = {}
KNOWN = {name: reason for reason, names in KNOWN_BY_REASON.items() for name in names}


def known(name, *values):
    """Return the parameters of one test, marked where it is known to fail."""
    reason = KNOWN.get(name)
    return pytest.param(*values, id=name, marks=[pytest.mark.xfail(strict=True, reason=reason)] if reason else [])


def cases(platform, **fixed):
    """Return a strategy of (truth, encoding)."""
    return st.tuples(g.truths(**fixed), g.encodings(platform))


@pytest.mark.parametrize("platform", [known(f"encoding-{platform}", platform) for platform in g.PLATFORMS])
def test_every_encoding_gives_the_truth(platform, explore):
    def check(case):
        with Case(*case) as sample:
            same(sample.read(), g.expected(*case))

    explore(check, cases(platform), 20)


def in_first_order(encoding):
    """Return the encoding with every row, column and entry in the order of the truth."""
    labels = encoding.labels and replace(encoding.labels, rows=0, columns=0)
    matrix = replace(encoding.matrix, barcodes=0, genes=0, entries=0)
    return replace(encoding, matrix=matrix, table=replace(encoding.table, rows=0, columns=0), labels=labels)


@pytest.mark.parametrize("platform", [known(f"order-{platform}", platform) for platform in g.PLATFORMS])
def test_the_order_of_rows_changes_nothing(platform, explore):
    def check(case):
        truth, encoding = case
        with Case(truth, encoding) as mixed, Case(truth, in_first_order(encoding)) as straight:
            same(mixed.read(), straight.read())

    explore(check, cases(platform), 12)


def damages_of(platform, *names):
    """Return a strategy of (truth, encoding, damage)."""

    def drawn(name):
        kind, numbers = d.KINDS[name], st.integers(0, 5)
        damage = st.builds(d.Damage, st.just(name), numbers, st.integers(0, 1000), numbers)
        return st.tuples(g.truths(**kind.fixed), g.encodings(platform).map(kind.needs), damage)

    return st.one_of([drawn(name) for name in names])


def damage(sample, choice):
    """Do one damage to the files of a sample."""
    d.KINDS[choice.kind].do(sample.root / "in", choice, sample.truth, sample.encoding)


@pytest.mark.parametrize(
    ("name", "platform"),
    [known(f"{name}-{platform}", name, platform) for name, kind in d.KINDS.items() for platform in kind.platforms],
)
def test_damage_is_told_or_changes_nothing(name, platform, explore):
    """What each kind of damage leaves out, as no reader could know it, stands in its docstring in `damages`."""

    def check(case):
        truth, encoding, choice = case
        with Case(truth, encoding) as sample:
            damage(sample, choice)
            try:
                found = sample.read()
            except InputError:
                return
            if name != "flipped_anywhere":
                same(found, g.expected(truth, encoding))

    explore(check, damages_of(platform, name), 3)


@pytest.mark.parametrize("platform", [known(f"words-{platform}", platform) for platform in g.PLATFORMS])
def test_damage_is_told_in_words(platform, explore):
    def check(case):
        with Case(*case[:2]) as sample:
            damage(sample, case[2])
            try:
                sample.read()
            except InputError as error:
                in_words(error)

    explore(check, damages_of(platform, *[n for n, kind in d.KINDS.items() if platform in kind.platforms]), 15)
