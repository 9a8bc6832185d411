"""Benchmarks of strategies on tables of a space of 64 codes: closed forms, the same again, resumed, and refusals."""

import itertools
import json
import math
import sys
from collections import Counter

import numpy as np
import pytest

from robust_nas.errors import CheckpointError, ConfigError, RunExistsError
from robust_nas.search import STRATEGIES
from robust_nas.search.sampled.on_table import TableRuns
from robust_nas.search.tables.table import Entry, Table
from robust_nas.spaces import Encoding, Size, load_space
from robust_nas.statistics.hypervolume import hypervolume
from robust_nas.workflows.benchmark_strategies import benchmark_strategies

SPACE = load_space("nas-bench-201", {"operations": ["none", "nor_conv_3x3"]})
ENCODING = Encoding(SPACE)
CODES = list(itertools.product(range(2), repeat=6))
SHARES = Counter(map(ENCODING.key, CODES))  # codes of every class
OWN = ["random", "local-search", "evolution"]


def genotype(code):
    nodes = ENCODING.decode(code).genotype[0].nodes
    return {"cell": [[(edge.operation, edge.source) for edge in node] for node in nodes]}


def table(rows=None, seed=0, **columns):
    """A table of the first classes with columns `a` and `b`, random numbers unless given."""
    firsts = list({ENCODING.key(code): code for code in CODES}.values())[:rows]
    rng = np.random.default_rng(seed)
    values = {**{name: rng.random(len(firsts)) for name in "ab"}, **columns}
    entries = [
        Entry(str(n), genotype(code), [float(each[n]) for each in values.values()], f"row {n}")
        for n, code in enumerate(firsts)
    ]
    return Table.of("small", SPACE, Size(cells=3, channels=4), list(values), entries)


def strategy_of(name, evaluations, batch=1):
    return STRATEGIES.make(name, evaluations=evaluations, batch=batch)


def curves(found):
    return {name: one.points for name, one in found.strategies.items()}


def test_random_search_is_as_good_as_draws_without_replacement_by_the_codes_of_every_class():
    known = table(rows=5)
    space = TableRuns(known, {"a": "max"})
    shares = np.array([SHARES[one] for one in known.classes], dtype=float)
    assert len(set(shares)) > 1
    expected = np.zeros(5)
    for order in itertools.permutations(range(5)):
        left = shares.sum() - np.append(0.0, np.cumsum(shares[list(order)])[:-1])
        expected += np.prod(shares[list(order)] / left) * np.maximum.accumulate(
            known.column("a")[list(order)]
        )
    found = benchmark_strategies(known, {"a": "max"}, ["random"], evaluations=range(1, 6), runs=400)
    runs = np.array([space.evaluated(strategy_of("random", 5), seed) for seed in range(400)])
    best = np.maximum.accumulate(known.column("a")[runs], axis=1)
    for number, point in enumerate(found.strategies["random"].points):
        error = best[:, number].std() / math.sqrt(400)
        assert point.mean == pytest.approx(best[:, number].mean())
        assert abs(point.mean - expected[number]) <= 3.5 * error + 1e-12
        assert point.low <= point.mean <= point.high
        assert point.regret == pytest.approx(found.optimum - point.mean)
    assert found.strategies["random"].points[-1].optimal == 1


def test_every_strategy_that_can_run_meets_every_network_and_the_others_have_a_reason():
    known = table(rows=12)
    found = benchmark_strategies(
        known, {"a": "max", "b": "min"}, evaluations=[1, 12], runs=3, external_runs=2, batch=4
    )
    assert list(found.left_out) == ["single-path", "successive-halving"]
    assert "has no rungs" in found.left_out["successive-halving"]
    for name, one in found.strategies.items():
        assert one.runs == (3 if name in OWN else 2)
        assert one.ended == 0
        assert one.points[-1].optimal == 1
        assert one.points[-1].mean == pytest.approx(found.optimum)
    for name in found.strategies:
        rows = TableRuns(known, {"a": "max", "b": "min"}).evaluated(strategy_of(name, 12, 4), 0)
        assert sorted(rows) == list(range(12))  # none twice, none that is unknown


def test_hypervolumes_are_those_of_the_first_rows_above_the_worst_values():
    known = table()
    objectives = {"a": "max", "b": "min"}
    space, gains = TableRuns(known, objectives), np.stack([known.column("a"), -known.column("b")], axis=1)
    rows = space.evaluated(strategy_of("random", 20), 3)
    found = benchmark_strategies(known, objectives, ["random"], evaluations=[5, 20], runs=4)
    assert found.reference == {"a": gains[:, 0].min(), "b": -gains[:, 1].min()}
    assert found.optimum == pytest.approx(hypervolume(gains, gains.min(axis=0)))
    expected = [hypervolume(gains[rows[:n]], gains.min(axis=0)) for n in (1, 5, 20)]
    assert space.hypervolumes(rows, [1, 5, 20], found.reference) == pytest.approx(expected)
    outside = benchmark_strategies(
        known, objectives, ["random"], evaluations=[5], runs=1, reference={"a": 2.0, "b": -1.0}
    )
    assert outside.optimum == 0


def test_lower_is_better_mirrors_higher_is_better():
    values = np.random.default_rng(1).random(len(SHARES))
    high = benchmark_strategies(table(a=values), {"a": "max"}, OWN, evaluations=[3, 10], runs=5)
    low = benchmark_strategies(table(a=-values), {"a": "min"}, OWN, evaluations=[3, 10], runs=5)
    for name in OWN:
        for one, other in zip(high.strategies[name].points, low.strategies[name].points, strict=True):
            assert [other.mean, other.low, other.high] == pytest.approx([-one.mean, -one.high, -one.low])
            assert other[4:] == pytest.approx(one[4:])


def test_rows_without_a_value_of_every_objective_are_not_proposed():
    known = table(rows=12, a=[math.nan, *range(11)])
    space = TableRuns(known, {"a": "max", "b": "max"})
    assert sorted(space.evaluated(strategy_of("random", 11), 0)) == list(range(1, 12))
    with pytest.raises(ConfigError, match=r"evaluations: got 12; 1\.\.11 are possible"):
        benchmark_strategies(known, {"a": "max"}, ["random"], evaluations=[12])
    with pytest.raises(ConfigError, match="no row has a value of a"):
        benchmark_strategies(table(rows=3, a=[math.nan] * 3), {"a": "max"}, ["random"], evaluations=[1])


def test_killed_it_goes_on_with_the_strategies_that_are_left(tmp_path):
    known, values = table(), {"evaluations": [5, 15], "runs": 4}
    whole = benchmark_strategies(known, {"a": "max"}, OWN, **values)

    def killed(name, done, total, note=""):
        if (name, done) == ("local-search", 2):
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        benchmark_strategies(known, {"a": "max"}, OWN, **values, out=out, progress=killed)
    assert sorted(path.name for path in out.iterdir()) == ["random.json", "settings.json"]
    kept, ran = (out / "random.json").read_bytes(), []
    again = benchmark_strategies(
        known, {"a": "max"}, OWN, **values, out=out, progress=lambda name, *_: ran.append(name)
    )
    assert set(ran) == {"local-search", "evolution"}
    assert (out / "random.json").read_bytes() == kept
    assert curves(again) == curves(whole)
    files = [*(f"{name}.json" for name in OWN), "curves.csv", "settings.json"]
    files += ["benchmark.json", "environment.json", "report.html"]
    files += [f"strategies.{suffix}" for suffix in ("csv", "png", "svg")]
    assert sorted(path.name for path in out.iterdir()) == sorted(files)
    assert (out / "curves.csv").read_text() == whole.to_csv()
    before = (out / "strategies.png").read_bytes()
    assert curves(benchmark_strategies(known, {"a": "max"}, OWN, **values, out=out)) == curves(whole)
    assert (out / "strategies.png").read_bytes() == before


def test_another_table_and_other_options_are_refused_in_a_folder_and_damage_is_named(tmp_path):
    out, known = tmp_path / "out", table()

    def call(given=known, objectives=None, **changes):
        values = {"evaluations": [5], "runs": 2, "out": out, **changes}
        return benchmark_strategies(given, objectives or {"a": "max"}, ["random"], **values)

    call()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for changes, message in (
        ({"given": table(seed=1)}, "other settings: table"),
        ({"objectives": {"b": "max"}}, "other settings: objectives"),
        ({"evaluations": [6]}, "other settings: evaluations was 5, now 6"),
        ({"batch": 2}, "other settings: batch"),
        ({"runs": 3}, "runs was 2, now 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(**changes)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    for text in ("{", "[]", json.dumps({**json.loads(before["random.json"]), "evaluated": [[0], [99]]})):
        (out / "random.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"random\.json"):
            call()
    with pytest.raises(RunExistsError, match="none of a benchmark"):
        call(out=tmp_path)


@pytest.mark.parametrize(
    ("strategies", "objectives", "changes", "message"),
    [
        (["dsara"], {"a": "max"}, {}, "got 'dsara'; allowed: random, "),
        (["annealing"], {"a": "max"}, {}, "got 'annealing'; allowed: random, "),
        (["successive-halving"], {"a": "max"}, {}, "successive-halving cannot run on a table.*has no rungs"),
        (["random", "random"], {"a": "max"}, {}, "random comes twice"),
        ([], {"a": "max"}, {}, "strategies: got none"),
        (["random"], {"x": "max"}, {}, "has no column 'x'"),
        (["random"], {"a": "max"}, {"evaluations": []}, "evaluations: got none"),
        (["random"], {"a": "max"}, {"evaluations": [0]}, "evaluations: got 0"),
        (["random"], {"a": "max"}, {"runs": 0}, "runs: got 0"),
        (["random"], {"a": "max"}, {"reference": {"a": 0.0}}, "one objective has no hypervolume"),
        (["random"], {"a": "max", "b": "max"}, {"reference": {"a": 0.0}}, "reference: got a 0.0; a finite"),
    ],
)
def test_mistakes_are_named(strategies, objectives, changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        benchmark_strategies(
            table(rows=5), objectives, strategies, **{"evaluations": [2], "out": tmp_path / "out", **changes}
        )
    assert not (tmp_path / "out").exists()


def test_without_optuna_its_strategies_are_left_out_and_refused_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    found = benchmark_strategies(table(rows=5), {"a": "max"}, evaluations=[2], runs=1)
    assert [name for name in found.strategies if STRATEGIES.get(name).package is None] == OWN
    assert all("optuna is not installed" in found.left_out[name] for name in ("nsga2", "tpe"))
    with pytest.raises(ConfigError, match="strategies: tpe cannot run on a table: optuna is not installed"):
        benchmark_strategies(table(rows=5), {"a": "max"}, ["tpe"], evaluations=[2], runs=1)
