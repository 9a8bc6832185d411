"""Every verb that searches or trains passes its records to the loggers of its config."""

import json
from typing import ClassVar

import pytest
from cases import config

import robust_nas
from robust_nas.config import check, to_dict
from robust_nas.errors import ConfigError
from robust_nas.integrations import tensorboard_logger
from robust_nas.logger import LOGGERS, Logger, RunLog, scalars_of
from robust_nas.run_folder import METRICS
from robust_nas.workflows.config import CompressionConfig

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))
MLP = robust_nas.MLPArchitecture(name="mlp", depth=1, width=16)
GENERATOR = (
    *("method.epochs=2", "method.stage1_epochs=1", "method.batch_size=32", "method.attacker_steps=2"),
    *("method.widths=[4, 4, 8]", "method.blocks=1", "report.images=12", "report.pgd_steps=2"),
    *("report.batch_size=4", "report.rounds=1"),
)
DISTILLED = (
    *("device=cpu", "threads=1", "method.kernel={name: linear}", "method.per_class=1", "method.steps=4"),
    *("method.batch_size=20", "method.validate_every=2", "data.limit=100", "data.validation=0.2"),
)


class Kept(Logger):
    logged: ClassVar[dict] = {}

    def start(self, run):
        self.logged[run.name] = []
        return KeptLog(self.logged[run.name])


class KeptLog(RunLog):
    def __init__(self, points):
        self.points = points

    def log(self, step, scalars):
        self.points.append((step, scalars))


@pytest.fixture
def logged(monkeypatch):
    monkeypatch.setattr(Kept, "logged", {})
    return Kept.logged


def with_logger(made):
    return made.model_copy(update={"loggers": (Kept(),)})


def metrics(folder):
    records = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [(r.get("step", r.get("epoch")), scalars_of(r)) for r in records]


def test_a_search_logs_every_step_with_the_entropy_of_its_alphas(tmp_path, logged):
    found = robust_nas.run_search(with_logger(config()), tmp_path / "search")
    ((name, points),) = logged.items()
    assert name == f"{tmp_path.name}/search"
    assert points == metrics(found.folder)
    assert [step for step, _ in points] == list(range(len(points)))
    assert {"entropy/accurate", "loss_weights", "learning_rate"} <= points[0][1].keys()


def test_a_training_logs_every_epoch_once_more_after_a_kill(tmp_path, logged):
    def stopped(job, done, total, note=""):
        if done == 5:  # of 2 steps an epoch
            raise KeyboardInterrupt

    options = with_logger(config("training.epochs=3", "checkpoint_seconds=0"))
    with pytest.raises(KeyboardInterrupt):
        robust_nas.train(options, TINY, tmp_path / "model", progress=stopped)
    assert len(*logged.values()) == 2
    folder = robust_nas.train(options, TINY, tmp_path / "model", mode="resume")
    ((_, points),) = logged.items()
    assert points == metrics(folder)
    assert [step for step, _ in points] == [0, 1, 2]
    assert {"loss", "train_accuracy", "clean", "robust"} <= points[0][1].keys()


def test_a_distillation_logs_its_validations(tmp_path, logged):
    options = with_logger(robust_nas.distill_config("quickstart", "kip", DISTILLED))
    robust_nas.distill(options, tmp_path / "set")
    ((_, points),) = logged.items()
    assert points == metrics(tmp_path / "set")
    assert [step for step, _ in points] == [0, 2, 4]


def test_a_generator_logs_its_epochs(tmp_path, logged):
    victim = robust_nas.train(config(), MLP, tmp_path / "model")
    assert logged == {}
    options = with_logger(robust_nas.attack_config(victim, overrides=GENERATOR))
    robust_nas.train_attack(options, victim, tmp_path / "generator")
    assert list(logged.values()) == [metrics(tmp_path / "generator")]
    assert [step for step, _ in logged.popitem()[1]] == [0, 1]


def test_loggers_are_no_part_of_what_a_result_depends_on(tmp_path, logged):
    first = robust_nas.train(config(), TINY, tmp_path / "plain")
    second = robust_nas.train(with_logger(config()), TINY, tmp_path / "logged")
    for name in ("config.yaml", "model.safetensors", METRICS):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    robust_nas.train(config(), TINY, second, mode="resume")  # finished: it is the same training


def test_a_compression_takes_the_loggers_of_its_run_config():
    tree = {**to_dict(config()), "compression": {"steps": [{"name": "gdws", "budgets": [0.5]}]}}
    made = check(robust_nas.RunConfig, {**tree, "loggers": ["tensorboard"]}, "test")
    assert CompressionConfig.of(made).loggers == (LOGGERS.make("tensorboard"),)


def test_a_missing_package_is_refused_before_a_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard_logger.TensorBoard, "needs", ("no_such_package",))
    options = config("loggers=[tensorboard]")
    with pytest.raises(ConfigError, match=r"pip install 'robust-nas\[loggers\]'; or leave it out"):
        robust_nas.train(options, TINY, tmp_path / "model")
    assert not (tmp_path / "model").exists()
