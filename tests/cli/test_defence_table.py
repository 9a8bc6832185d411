"""The table of a defended model: a line for each kind, a dash where there is no number, and the false alarms."""

from robust_nas.cli.defence_table import show_defence, show_rows


def score(correct, images=20):
    return {
        "correct": correct,
        "images": images,
        "accuracy": correct / images,
        "interval": [0.1, 0.9],
    }


def test_four_lines_and_the_false_alarms(capsys):
    kinds = ("undefended", "unaware", "adaptive", "certified")
    rows = [
        {"kind": kind, "attack": attack, "clean": score(19), "robust": robust}
        for kind, attack, robust in zip(
            kinds,
            ("pgd-10", "unaware-pgd-10", "joint-5x40", None),
            (score(2), score(18), score(5), None),
            strict=True,
        )
    ]
    alarms = {"rejected": 3, "images": 60, "rate": 0.05, "interval": [0.017, 0.137]}
    show_defence({"name": "feature-squeezing", "rows": rows, "false_alarms": alarms})
    printed = capsys.readouterr().out
    lines = {kind: next(line for line in printed.splitlines() if kind in line) for kind in kinds}
    assert "25.0 %" in lines["adaptive"]
    assert "joint-5x40" in lines["adaptive"]
    assert "90.0 %" in lines["unaware"]
    assert lines["certified"].count(" - ") == 3
    assert "3 of 60 clean test images rejected: 5.0 % (1.7 % to 13.7 %)" in printed
    show_defence({"name": "blur", "rows": rows[:3], "false_alarms": None})
    assert "rejected" not in capsys.readouterr().out


def test_of_a_bayesian_network_the_lines_are_headed_by_the_network(capsys):
    kinds = ("posterior mean", "transferred", "random")
    rows = [{"kind": kind, "attack": "pgd-10", "clean": score(19), "robust": score(9)} for kind in kinds]
    show_rows("network", "posterior mean", {"rows": rows})
    printed = capsys.readouterr().out
    assert "posterior mean: each attack alone" in printed
    assert "network" in printed
    assert "defence" not in printed
    assert all(kind in printed for kind in kinds)
