"""`robust-nas defend`: output for people and machines, config, mistakes, the example of docs/how-to/defences.md."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from cases import config
from pages import read_page

import robust_nas

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "defences.md").read_text()
EXAMPLE = re.search(r"```python\n# my_defence.py\n(.*?)```", PAGE, re.DOTALL)[1]
COMMANDS = [line for line in re.findall(r"(?m)^    robust-nas (.+)$", PAGE) if "MODEL" not in line]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    network = robust_nas.MLPArchitecture(name="mlp", depth=1, width=8)
    return robust_nas.train(config(), network, tmp_path_factory.mktemp("plain") / "model")


def test_it_defends_prints_and_is_shown_again(call, plain, tmp_path):
    out = tmp_path / "made"
    done = call("defend", plain, "--with", "crop-resize", "samples=2", "--out", out)
    assert done.code == 0, done.err
    assert "20 validation images of digits, not attacked" in done.out
    assert "has no exported form: its answer is random" in done.out
    assert str(out / "model") in done.out
    assert str(out / "report.html") in done.out
    again = call(
        "defend", plain, "--with", "crop-resize", "samples=2", "--out", out, "--resume", "--json", "-q"
    )
    assert again.code == 0, again.err
    record = json.loads(again.out)
    assert record["folder"] == str(out)
    assert record["method"]["samples"] == 2
    assert call("defend", plain, "--with", "crop-resize", "samples=2", "--out", out).code == 2
    assert call("defend", plain, "--with", "jpeg", "--out", out, "--overwrite").code == 0


def test_the_usual_folder_is_in_that_of_the_model(call, plain):
    assert call("defend", plain, "--with", "blur", "-q").code == 0
    assert (plain / "defended" / "model" / "model.json").is_file()
    assert "With blur " in read_page(plain / "defended" / "report.html").text


def test_its_config_is_small(call, plain):
    printed = call("defend", plain, "--with", "jpeg", "quality=8", "images=12", "--print-config")
    tree = yaml.safe_load(printed.out)
    assert tree["method"] == {"name": "jpeg", "quality": 8}
    assert tree["images"] == 12
    assert not {"training", "search", "evaluation"} & tree.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a defence with --with; there are blur"),
        (("--with", "jpegg"), "--with: got 'jpegg'; allowed: blur"),
        (("--with", "jpeg", "quality=0"), "method.quality: got 0"),
        (("--with", "jpeg", "quality=0.5"), "method.quality"),
        (("--with", "none.py:None"), "there is no such file"),
        (("--with", "blur", "--resume", "--overwrite"), "give one of them"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(call, plain, tmp_path, arguments, message):
    done = call("defend", plain, *arguments, "--out", tmp_path / "made")
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())
    assert not (tmp_path / "made").exists()


def test_the_page_shows_two_defences_with_their_evaluations():
    assert [shlex.split(line)[0] for line in COMMANDS] == ["defend", "evaluate"] * 2
    assert len(EXAMPLE.splitlines()) < 45


@pytest.mark.parametrize("first", [0, 2])
def test_the_commands_of_the_page_run(first, call, plain, tmp_path):
    (tmp_path / "my_defence.py").write_text(EXAMPLE)
    run = tmp_path / "results" / "quickstart"
    shutil.copytree(plain, run / "model")
    for name in ("config.yaml", "result.json"):  # of a run
        shutil.copy(plain / name, run)
    for line in COMMANDS[first : first + 2]:
        verb, *arguments = shlex.split(line)
        small = ["--images", "16", "evaluation.findings=none"] if verb == "evaluate" else []
        done = call(verb, *arguments, *small, "--quiet", "--json")
        assert done.code == 0, done.err
    tree = json.loads(done.out)
    assert tree["clean"]["images"] == 16


def test_the_example_is_found_out_where_its_gradient_is_hidden():
    """What the page warns of: a constant rejecting logit has no gradient, the margin of the example has one."""
    import torch

    names = {"__name__": "my_defence"}
    exec(compile(EXAMPLE, "my_defence.py", "exec"), names)  # noqa: S102 - the page's own text
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    defence = names["RoundAndReject"](name="own", levels=4)
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    values = defence.calibrate(network, x, torch.zeros(64, dtype=torch.int64))
    module = defence.wrap(network, values)
    given = x.requires_grad_()
    logits = module(given)
    rejected = logits.argmax(1) == 3
    assert int(rejected.sum()) == 4  # 5 % of 64 images, upwards: below the interpolated quantile
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), given)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    rounded = network((4 * x).round() / 4).softmax(1).amax(1)
    assert torch.equal(rejected, rounded < values["threshold"])
