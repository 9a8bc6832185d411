"""Every sampled strategy on tables in memory: what is paid for, windows, unknown rows, NaN, and whether it searches."""

import importlib.util
import math
import os
import sys

import numpy as np
import pytest
from small_search import SMALL, Stopped, searched

from robust_nas.errors import ConfigError, DivergenceError, SearchSpaceError
from robust_nas.search import EVALUATORS, STRATEGIES, Trained
from robust_nas.search.sampled.asking import run
from robust_nas.search.sampled.history import SampledSearch
from robust_nas.spaces import CodedCost, Encoding, Size, load_space

NAMES = [
    name
    for name in STRATEGIES.built_in
    if STRATEGIES.get(name).kind == "sampled" and name != "single-path"  # asks as evolution does
]
ENCODINGS = {name: Encoding(load_space(name)) for name in ("nas-bench-201", "dsara")}
ENCODINGS["smallest"] = Encoding(
    load_space("nas-bench-201", {"operations": ["none", "nor_conv_3x3"]})
)  # 64 codes
COSTS = {name: CodedCost(one, Size(cells=6, channels=4), (3, 16, 16)) for name, one in ENCODINGS.items()}
NNI = os.environ.get("ROBUST_NAS_HIDE_NNI") != "1" and importlib.util.find_spec("nni") is not None
FOREIGN = pytest.mark.skipif(not NNI, reason="no NNI")
every_strategy = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=FOREIGN if name.startswith("nni:") else ()) for name in NAMES]
)
every_space = pytest.mark.parametrize("space", ["nas-bench-201", "dsara"])


@pytest.mark.parametrize("name", [name for name in NAMES if STRATEGIES.get(name).package is None])
def test_a_window_that_is_hardly_ever_met_ends_a_search_and_loses_nothing(name, monkeypatch):
    monkeypatch.setattr("robust_nas.search.sampled.history.MAX_DRAWS", 3)
    encoding = ENCODINGS["nas-bench-201"]
    only = encoding.key(encoding.sample(np.random.default_rng([0, 0])))
    search, reason, paid, _ = search_of(name, knows=lambda code: encoding.key(code) == only)
    assert (reason, [key for key, _ in paid][:1]) == ("no proposals", [only])
    assert {encoding.key(one.code) for one in search.candidates} == {only}


class Asks:
    """Asks for one proposal."""

    def __init__(self, proposal):
        self.proposal = proposal

    def ask(self, search):
        return [self.proposal]

    def tell(self, search, candidates):
        search.evaluations = len(candidates)


@pytest.mark.parametrize(
    "proposal", [(), ((0,) * 5, None), ((0.5,) * 6, None), ((5,) * 6, None), ((0,) * 6,), (None, None)]
)
def test_a_proposal_that_is_no_code_is_answered_with_what_is(proposal):
    search, *_ = search_of("random", evaluations=1)
    search.evaluations = 2
    with pytest.raises(SearchSpaceError, match=r"the strategy asked for \("):
        run(Asks(proposal), search, lambda fresh: ())


def test_integers_of_numpy_are_those_of_python_in_the_record():
    search, *_ = search_of("random", evaluations=1)
    search.evaluations = 2
    code = tuple(np.array(search.candidates[0].code) * 0 + 4)
    run(Asks((code, None)), search, lambda fresh: ((one, {"score": 0.0}) for one in fresh))
    assert [type(value) for value in search.candidates[-1].code] == [int] * 6


def smooth(encoding, seed=0):
    """A landscape: every choice adds its own value, every pair of neighbouring choices a smaller one."""
    rng = np.random.default_rng(seed)
    own = [rng.normal(size=size) for size in encoding.sizes]
    pairs = rng.normal(scale=0.3, size=(len(own), 64, 64))

    def value(code):
        neighbours = zip(pairs, code, code[1:], strict=False)
        return float(
            sum(o[c] for o, c in zip(own, code, strict=True)) + sum(p[a, b] for p, a, b in neighbours)
        )

    return value


def search_of(name, space="nas-bench-201", *, value=None, seed=0, knows=lambda code: True, **options):
    """The finished search of a strategy, why it ended, and everything that was paid for."""
    encoding, cost, paid = ENCODINGS[space], COSTS[space], []
    value, clean = value or smooth(encoding), smooth(encoding, 99)
    strategy = STRATEGIES.make(name, **{"evaluations": 40, **options})
    search = SampledSearch(
        encoding, seed, strategy.goal, strategy.evaluations, strategy.batch, cost,
        strategy.macs, strategy.params, knows, strategy.top_rung,
    )  # fmt: skip

    def evaluate(fresh):
        for one in reversed(fresh):  # the order of the ends is no matter
            code, rung = one.proposal
            paid.append((encoding.key(code), rung))
            assert knows(code)
            known = {"macs": cost(code).macs, "params": cost(code).params}
            yield one, {"score": value(code), **known, "robust": value(code), "clean": clean(code)}

    reason = run(strategy, search, evaluate)
    return search, reason, paid, strategy


@every_strategy
@every_space
def test_a_search_repeats_itself_and_pays_once_for_a_network_at_a_rung(name, space):
    search, reason, paid, _ = search_of(name, space)
    assert len(set(paid)) == len(paid) == len(search.candidates)
    assert (reason, len(paid)) == ("evaluations", 40) or name == "successive-halving"
    assert [one.number for one in search.candidates] == list(range(len(paid)))
    again = search_of(name, space)[0].candidates
    assert again == search.candidates
    assert search_of(name, space, seed=1)[0].candidates != again


@every_strategy
def test_what_is_outside_the_windows_or_unknown_is_never_paid_for(name):
    cost = COSTS["nas-bench-201"]

    def knows(code):
        return sum(code) % 2 == 0

    search, _, paid, _ = search_of(name, knows=knows, macs=(8e5, 4e6), params=(0, 3e4))
    assert len(paid) >= 30
    for one in search.candidates:
        assert 8e5 <= cost(one.code).macs <= 4e6
        assert cost(one.code).params <= 3e4


@every_strategy
def test_a_space_that_is_exhausted_or_unknown_ends_the_search(name):
    _, reason, paid, _ = search_of(name, "smallest", evaluations=200)
    assert reason == "no proposals"
    assert 10 < len({key for key, _ in paid}) <= 2**6
    with pytest.raises(SearchSpaceError, match="known to the evaluator"):
        search_of("random", knows=lambda code: False)


@every_strategy
def test_constraints_hold_for_the_result_and_missing_numbers_are_never_it(name):
    value = smooth(ENCODINGS["nas-bench-201"])

    def holed(code):
        return math.nan if sum(code) % 3 == 0 else value(code)

    options = {"objectives": {"robust": "max", "macs": "min"}, "constraints": {"clean": "-1:1.5"}}
    search, _, _, strategy = search_of(name, value=holed, **options, evaluations=60)
    assert any(one.gains is None for one in search.candidates)
    taken = strategy.taken(search.candidates)
    assert -1 <= taken.measured["clean"] <= 1.5
    assert all(math.isfinite(gain) for gain in taken.gains)
    finalists = strategy.comparable(search.candidates)
    assert all(not search.goal.is_better(one, taken) for one in finalists)
    records = [{**one.measured, "candidate": one.number, "name": str(one.number), "rung": one.rung}
               for one in search.candidates]  # fmt: skip
    result = strategy.result(records)
    assert result["taken"] == str(taken.number)
    assert result["robust"] == max(one["robust"] for one in result["pareto_set"])
    assert result["hypervolume"]["value"] >= 0


def test_local_search_and_evolution_are_ahead_of_random():
    found = {}
    for name in ("random", "local-search", "evolution"):
        runs = [search_of(name, value=smooth(ENCODINGS["nas-bench-201"], seed), seed=seed, evaluations=100)[0]
                for seed in range(12)]  # fmt: skip
        found[name] = np.array([max(one.score for one in search.candidates) for search in runs])
    for name in ("local-search", "evolution"):
        ahead = found[name] - found["random"]
        assert ahead.mean() > 3 * ahead.std(ddof=1) / len(ahead) ** 0.5


def test_local_search_ends_its_walk_at_a_network_that_no_neighbour_beats():
    search, _, _, _ = search_of("local-search", evaluations=300)
    best = max(search.candidates, key=lambda one: one.score)
    value = smooth(ENCODINGS["nas-bench-201"])
    assert all(value(code) <= best.score for code in search.encoding.neighbours(best.code))


def test_successive_halving_promotes_the_best_and_takes_one_of_the_longest_rung():
    evaluator = EVALUATORS.make("short-training", epochs=18)
    search, _, _, strategy = search_of("successive-halving", evaluations=39, rungs=3, evaluator=evaluator)
    rungs = {length: [one for one in search.candidates if one.rung == length] for length in (2, 6, 18)}
    assert [len(rung) for rung in rungs.values()] == [27, 9, 3]
    for short, long in ((2, 6), (6, 18)):
        best = sorted((one.score for one in rungs[short]), reverse=True)[: len(rungs[long])]
        assert sorted((one.score for one in rungs[long]), reverse=True) == best
    assert strategy.taken(search.candidates).rung == 18


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluator": {"name": "proxy", "proxy": "params"}}, "evaluator proxy params has no rungs"),
        ({"eta": 1}, "eta: got 1; at least 2"),
        ({"rungs": 4}, r"evaluator\.epochs: got 5; 4 rungs with eta 3 need at least 27"),
        ({"rungs": 2, "evaluations": 3}, "evaluations: got 3; 2 rungs with eta 3 need at least 4"),
    ],
)
def test_a_halving_that_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        STRATEGIES.make("successive-halving", **{"rungs": 2, **options})


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_without_optuna_its_strategies_say_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=rf"strategy {name}: Optuna is not installed.*robust-nas\[optuna\]"):
        search_of(name)


def test_a_search_in_time_records_where_it_stopped_and_its_clock_goes_on(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("robust_nas.search.sampled.loop.time.perf_counter", lambda: clock[0])

    def train(architecture, *_):
        clock[0] += 10
        return Trained(0.5, 0.25)

    strategy = STRATEGIES.make("random", **SMALL, budget="35s")
    outcome, records = searched(tmp_path / "whole", strategy, train=train)
    assert outcome.stopped == {"reason": "time", "evaluations": 4}
    assert (len(records), outcome.seconds) == (4, 40)
    with pytest.raises(Stopped):
        searched(tmp_path / "cut", strategy, train=train, stop_at=2)
    resumed, same = searched(tmp_path / "cut", strategy, train=train, mode="resume")
    assert (resumed.architecture, resumed.stopped, same) == (outcome.architecture, outcome.stopped, records)


def test_a_search_without_a_candidate_within_the_constraints_says_how_near_it_came(tmp_path):
    strategy = STRATEGIES.make("random", **SMALL, evaluations=3, constraints={"clean": "0.8:1"})
    with pytest.raises(
        SearchSpaceError, match=r"none of 3 candidates is within clean 0\.8:1; nearest: .* clean 0\.5"
    ):
        searched(tmp_path, strategy)
    nothing = STRATEGIES.make("random", **SMALL, evaluations=2)
    with pytest.raises(DivergenceError, match="none of 2 candidates could be scored"):
        searched(tmp_path / "b", nothing, train=lambda *_: Trained(0.5, math.nan))
