"""`robust-nas attack run` and `evaluate --images FILE.npz`: what they print for people and machines, and mistakes."""

import json

import pytest
from cases import config

import robust_nas

NETWORK = robust_nas.MLPArchitecture(name="mlp", depth=1, width=8)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [
        robust_nas.train(
            config(f"seed={seed}", "training.epochs=4", "training.loss=natural"),
            NETWORK,
            folder / f"model{seed}",
        )
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def made(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "fgsm"
    return out, robust_nas.run_attack("fgsm", models[0], out, options={"eps": 0.2}, images=40)


@pytest.mark.parametrize("json_too", [False, True])
def test_it_prints_what_the_library_returns(call, made, models, tmp_path, json_too):
    arguments = ("eps=0.2", "--images", "40", "--out", tmp_path / "set", *(["--json"] if json_too else []))
    done = call("attack", "run", "fgsm", models[0], *arguments)
    assert done.code == 0, done.err
    keys = ("clean", "robust", "success", "distances", "passes")
    if json_too:
        record = json.loads(done.out)
        assert [record[key] for key in keys] == [json.loads(json.dumps(made[1][key])) for key in keys]
        return
    for key in ("clean", "robust", "success"):
        assert made[1][key]["of"] > 0
        assert f"{made[1][key]['count']} of {made[1][key]['of']}" in done.out
    assert "linf eps 0.2" in done.out
    assert str(tmp_path / "set" / "set.npz") in done.out


@pytest.mark.parametrize(
    ("number", "words"), [(0, "made for this very model"), (1, "another model, mlp: a transfer attack")]
)
def test_a_saved_set_is_judged_and_its_victim_named(call, made, models, tmp_path, number, words):
    done = call("evaluate", models[number], "--images", made[0] / "set.npz", "--out", tmp_path / "judged")
    assert done.code == 0, done.err
    assert words in done.out
    again = call("evaluate", models[number], "--images", made[0] / "set.npz", "--json")
    record = json.loads(again.out)
    assert record["victim"] == ("own" if number == 0 else "other")
    assert f"{record['robust']['count']} of {record['robust']['of']}" in done.out
    if number == 0:
        assert record["robust"]["count"] == made[1]["robust"]["count"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("attack", "run", "fsgm", "MODEL", "--out", "OUT"), "fsgm"),
        (("attack", "run", "fgsm", "MODEL", "steps=3", "--out", "OUT"), "unknown key 'steps'"),
        (("attack", "run", "fgsm", "MODEL", "--part", "train", "--out", "OUT"), "allowed: test, validation"),
        (("evaluate", "MODEL", "--images", "none.npz"), "none.npz"),
        (("evaluate", "MODEL", "--images", "SET", "--suite", "quick"), "--suite does not go with it"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(call, made, models, tmp_path, arguments, message):
    places = {"MODEL": models[0], "OUT": tmp_path / "out", "SET": made[0] / "set.npz"}
    done = call(*(places.get(word, word) for word in arguments))
    assert done.code == (1 if "none.npz" in arguments else 2)  # a file that is not there is no bad usage
    assert message in done.err
    assert not (tmp_path / "out").exists()
