"""Measured objectives of a sampled search: latency here or of a table, and robust accuracy after compression."""

import json
import math

import pytest
from cases import config
from small_tables import latency_csv

from robust_nas import run_search
from robust_nas.errors import ConfigError, DivergenceError, RunExistsError
from robust_nas.export import latency
from robust_nas.nets import read_model
from robust_nas.nets.cost import measured_cost
from robust_nas.run_folder import CHECKPOINT, read_json
from robust_nas.search import load_table
from robust_nas.spaces import sample
from robust_nas.workflows import candidate_measures
from robust_nas.workflows.candidate_measures import CandidateLatency, LatencyOptions
from robust_nas.workflows.context import load_context

LATENCY = {"objectives": {"score": "max", "latency_ms": "min"}}
COMPRESSED = {"objectives": {"compressed_robust": "max"}}
GDWS = "compression.gdws={budgets: [0.9], refit: 16, alpha: null}"
DENSE = (
    "space={name: nas-bench-201, changes: {operations: [nor_conv_3x3, skip_connect]}}"  # has what GDWS takes
)
NB201 = "space={name: nas-bench-201, changes: {operations: [none, nor_conv_1x1, skip_connect]}}"


class Stopped(Exception):  # noqa: N818 - no error
    """Stands for a kill."""


def searching(evaluator, *overrides, evaluations=3, **keys):
    search = {
        "name": "random", "cells": 4, "channels": 2, "evaluations": evaluations, "evaluator": evaluator, **keys,
    }  # fmt: skip
    return config(f"search={json.dumps(search)}", *overrides)


def by_params(*overrides, **keys):
    return searching({"name": "proxy", "proxy": "params", "images": 8}, *overrides, **keys)


def trained(*overrides, **keys):
    return searching({"name": "short-training", "epochs": 1}, *overrides, **keys)


def columns(folder, name):
    return [json.loads(line)[name] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def measured(monkeypatch):
    """Latencies that count the networks they are taken of: another number at every measurement."""
    taken = []

    def latencies(networks, shape, *, batches, runtimes):
        taken.append(next(iter(networks.values())))
        assert (batches, len(runtimes), shape) == ((1,), 1, (1, 8, 8))
        return {"candidate": {runtimes[0]: {"1": {"median_ms": len(taken) / 8}}}}, []

    monkeypatch.setattr(latency, "latencies", latencies)
    return taken


def test_latency_is_a_median_of_the_final_network_in_milliseconds(tmp_path):
    found = run_search(by_params(**LATENCY), tmp_path)
    values = columns(tmp_path, "latency_ms")
    assert all(0 < value < 1000 for value in values)
    assert {one["latency_ms"] for one in found.record["pareto_set"]} <= set(values)
    assert len(list((tmp_path / "latency").iterdir())) == 3


def test_a_resumed_search_repeats_the_record_and_not_the_measurement(tmp_path, measured):
    def stop_at_two(job, done, total, note=""):
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        run_search(by_params("checkpoint_seconds=1000", **LATENCY), tmp_path, progress=stop_at_two)
    (tmp_path / CHECKPOINT).unlink()  # as if killed: what is known of the measurements is their own record
    run_search(by_params("checkpoint_seconds=1000", **LATENCY), tmp_path, mode="resume")
    assert columns(tmp_path, "latency_ms") == [1 / 8, 2 / 8, 3 / 8]
    sizes = {measured_cost(network, (1, 8, 8)).macs for network in measured}
    assert sizes == set(columns(tmp_path, "macs"))  # of the final size


def test_a_network_of_several_rungs_is_measured_once(tmp_path, measured):
    two_epochs = {"name": "short-training", "epochs": 2}
    halving = {"name": "successive-halving", "rungs": 2, "eta": 2, "constraints": {"latency_ms": "0:1"}}
    values = searching(two_epochs, **halving)
    run_search(values, tmp_path)
    macs, taken = columns(tmp_path, "macs"), columns(tmp_path, "latency_ms")
    assert len(taken) == 3
    assert len(measured) == 2
    assert taken[2] in taken[:2]
    assert macs[2] == macs[taken.index(taken[2])]


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_latency_of_zero_or_nan_is_recorded_as_absent_with_its_reason(value, tmp_path, monkeypatch):
    found = {"candidate": {"torch": {"1": {"median_ms": value}}}}
    monkeypatch.setattr(latency, "latencies", lambda *_, **__: (found, []))
    with pytest.raises(DivergenceError, match="none of 3 candidates could be scored"):
        run_search(by_params(**LATENCY), tmp_path)
    assert columns(tmp_path, "latency_ms") == [None] * 3
    assert columns(tmp_path, "score") != [None] * 3
    assert all("gave" in read_json(path)["reason"] for path in (tmp_path / "latency").iterdir())


def test_latencies_of_a_table_are_looked_up_by_class(tmp_path):
    file = latency_csv(tmp_path)
    table = load_table(file)
    options = LatencyOptions(table=str(file), device="fpga")
    measure = CandidateLatency(tmp_path / "latency", options, load_context(config()))
    known = [row for row in range(len(table)) if math.isfinite(table.columns["fpga_ms"][row])]
    for row in known:
        assert measure(table.architecture(row).resized(5, 4)) == table.columns["fpga_ms"][row]
    absent = next(
        one for one in (sample(table.space, seed) for seed in range(99)) if table.class_of(one) not in table.classes
    )  # fmt: skip
    assert measure(absent) is None


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compressed")
    return run_search(trained(DENSE, GDWS, compressed_macs=0.9, **COMPRESSED), folder)


def test_the_compressed_candidate_is_what_the_compression_makes_of_the_trained_one(
    compressed, tmp_path, monkeypatch
):
    made = []
    describe = candidate_measures.describe

    def watched(context, candidate, network):
        row = describe(context, candidate, network)
        original = read_model(context.root / "original")
        made.append((row, measured_cost(original.network, (1, 8, 8)).macs, len(context.validation)))
        return row

    monkeypatch.setattr(candidate_measures, "describe", watched)
    again = run_search(trained(DENSE, GDWS, compressed_macs=0.9, **COMPRESSED), tmp_path)
    assert again.record["compressed_robust"] == compressed.record["compressed_robust"]
    assert (tmp_path / "metrics.jsonl").read_bytes() == (compressed.folder / "metrics.jsonl").read_bytes()
    found = [value for value in columns(tmp_path, "compressed_robust") if value is not None]
    assert found == [row["validation"]["robust"] for row, macs, _ in made if row["macs"] <= 0.9 * macs]
    assert {images for *_, images in made} == {
        16
    }  # held out of the search's 80: not the run's validation split
    assert not list(tmp_path.glob("candidates/*/compressed"))


def test_what_a_compression_makes_no_smaller_has_no_value(tmp_path):
    values = trained(DENSE, GDWS, evaluations=1, compressed_macs=0.1, **COMPRESSED)
    with pytest.raises(DivergenceError, match="none of 1 candidates could be scored"):
        run_search(values, tmp_path)
    assert columns(tmp_path, "compressed_robust") == [None]
    assert None not in columns(tmp_path, "robust")


def test_a_search_depends_on_its_compression_only_where_it_compresses(compressed, tmp_path):
    with pytest.raises(RunExistsError, match=r"different: compression"):
        run_search(
            trained(DENSE, GDWS, "compression.max_loss=0.5", compressed_macs=0.9, **COMPRESSED),
            compressed.folder,
            mode="resume",
        )
    run_search(by_params(), tmp_path)
    run_search(by_params(GDWS), tmp_path, mode="resume")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            lambda path: by_params(**COMPRESSED),
            "compressed_robust: evaluator proxy params keeps no trained network",
        ),
        (lambda path: trained(**COMPRESSED), "compressed_robust of the search needs a section compression"),
        (
            lambda path: trained(GDWS, **COMPRESSED),
            "gdws can compress none of 8 networks",
        ),
        (lambda path: trained(compressed_macs=1, **COMPRESSED), r"compressed_macs: got 1"),
        (
            lambda path: by_params(latency={"runtime": "onnxruntime"}, **LATENCY),
            r"search\.latency\.runtime: got 'onnxruntime'; none_such not installed .*robust-nas\[export\]",
        ),
        (
            lambda path: by_params(latency={"device": "fpga"}, **LATENCY),
            "table .* and device .* needed together",
        ),
        (
            lambda path: by_params(latency={"device": "fpga", "table": str(latency_csv(path))}, **LATENCY),
            r"search\.latency\.table: .* is not of nas-bench-201",
        ),
        (
            lambda path: by_params(
                NB201, latency={"device": "abacus", "table": str(latency_csv(path))}, **LATENCY
            ),
            "has no device 'abacus'; it has",
        ),
        (lambda path: by_params(objectives={"latency": "min"}), "objectives: got 'latency'; columns of"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_folder_is_made(values, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run_search(values(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()
