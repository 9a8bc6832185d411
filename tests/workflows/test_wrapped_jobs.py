"""Ensembles and mean-field networks through train, evaluate, export and compress, and what is refused before."""

import shutil

import pytest
import torch
from cases import config

import robust_nas
from robust_nas import environment
from robust_nas.distributed import ALONE
from robust_nas.errors import CheckpointError, ConfigError, RunExistsError
from robust_nas.nets import read_model
from robust_nas.workflows import memory
from robust_nas.workflows.config import CompressionConfig, model_config
from robust_nas.workflows.context import distribute
from robust_nas.workflows.search_job import SearchJob

TINY = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 4))
PARTICLES = "network.particles=3"
POSTERIOR = ("network.posterior=mean-field", "network.samples=2")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    return robust_nas.train(config(PARTICLES), TINY, tmp_path_factory.mktemp("ensemble") / "model")


@pytest.fixture(scope="module")
def posterior(tmp_path_factory):
    return robust_nas.train(config(*POSTERIOR), TINY, tmp_path_factory.mktemp("posterior") / "model")


def test_a_trained_ensemble_is_a_model_folder_of_all_particles(ensemble):
    architecture = robust_nas.load_architecture(ensemble)
    assert (architecture.type, architecture.name, architecture.particles) == (
        "ensemble",
        "ensemble-3.tiny",
        3,
    )
    assert architecture.member == TINY
    cost = robust_nas.count(TINY, (1, 8, 8), 10).times(3)
    assert sum(p.numel() for p in robust_nas.load_model(ensemble).parameters()) == cost.params
    record = robust_nas.run_folder.read_json(ensemble / "result.json")
    assert (record["params"], record["macs"]) == (cost.params, cost.macs)


def test_it_trains_to_the_same_bits_and_resumes_as_it_is_or_by_its_member(ensemble, tmp_path):
    again = robust_nas.train(config(PARTICLES), TINY, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (ensemble / "model.safetensors").read_bytes()
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(robust_nas.load_model(again)(x), robust_nas.load_model(ensemble)(x))
    robust_nas.train(config(PARTICLES), TINY, again, mode="resume")
    robust_nas.train(config(PARTICLES), robust_nas.load_architecture(again), again, mode="resume")
    with pytest.raises(RunExistsError, match=r"architecture\.particles"):
        robust_nas.train(config("network.particles=2"), TINY, again, mode="resume")


def test_every_particle_counts_in_the_digest_and_names_do_not(ensemble, tmp_path):
    folder = shutil.copytree(ensemble, tmp_path / "copy")
    found = read_model(folder)
    known = found.digest
    text = (folder / "architecture.yaml").read_text()
    (folder / "architecture.yaml").write_text(text.replace("name: tiny", "name: other"))
    assert read_model(folder).digest == known
    with torch.no_grad():
        found.network.members[2].classifier.bias[0] += 1
    assert found.digest != known


def test_a_folder_with_weights_of_another_ensemble_is_refused(ensemble, tmp_path):
    for given, said in (("2", "is foreign"), ("4", "is missing")):
        folder = shutil.copytree(ensemble, tmp_path / given)
        path = folder / "architecture.yaml"
        path.write_text(path.read_text().replace("particles: 3", f"particles: {given}"))
        with pytest.raises(CheckpointError, match=rf"does not fit the architecture: members\..* {said}"):
            robust_nas.load_model(folder)


def test_an_ensemble_is_evaluated_as_any_deterministic_model_and_exported(ensemble, tmp_path):
    verdict = robust_nas.run_evaluation(model_config(ensemble), ensemble, tmp_path / "evaluation")
    assert verdict["robust"]["images"] == 20
    source = robust_nas.export_model(ensemble, tmp_path / "export") / "network.py"
    names = {"__name__": "network", "__file__": str(source)}
    exec(compile(source.read_text(), "network.py", "exec"), names)  # noqa: S102
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(names["load"]()(x), robust_nas.load_model(ensemble)(x))


def test_a_posterior_brings_its_rule_into_every_evaluation(posterior, tmp_path):
    verdict = robust_nas.run_evaluation(model_config(posterior), posterior, tmp_path / "evaluation")
    assert verdict["deployed"]["samples"] == 2
    with pytest.raises(
        ConfigError,
        match=r"evaluation\.deployed\.samples: got 5, .* says 2.*MeanFieldNetwork, which is random",
    ):
        robust_nas.run_evaluation(
            model_config(posterior, ["evaluation.deployed.samples=5"]), posterior, tmp_path / "refused"
        )
    assert not (tmp_path / "refused").exists()


def test_it_trains_to_the_same_bits_as_its_draws_are_the_training_s(posterior, tmp_path):
    torch.rand(7)  # moves the global generator
    again = robust_nas.train(config(*POSTERIOR), TINY, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (posterior / "model.safetensors").read_bytes()
    state = robust_nas.load_model(posterior).state_dict()
    assert any(name.startswith("rho.") for name in state)


@pytest.mark.parametrize("form", ["source", "onnx", "program"])
def test_a_random_network_is_not_exported(posterior, tmp_path, form):
    with pytest.raises(ConfigError, match=r"cannot be exported: its answer is the mean of 2 random passes"):
        robust_nas.export_model(posterior, tmp_path / "export", forms=[form])
    assert not (tmp_path / "export").exists()


def test_a_random_network_is_not_compressed(posterior, tmp_path):
    asked = CompressionConfig.of(config("compression={steps: [{name: gdws}]}"))
    with pytest.raises(ConfigError, match=r"mean of 2 random passes, and a compression takes one pass"):
        robust_nas.compress(asked, posterior, tmp_path / "compressed")
    assert not (tmp_path / "compressed").exists()


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        (["network.particles=0"], "tiny", r"network\.particles: got 0"),
        (["network.draws=2"], "tiny", r"network: draws: got 2; it needs particles"),
        (["network.samples=2"], "tiny", r"network: samples: got 2; it needs posterior"),
        ([PARTICLES, *POSTERIOR], "tiny", r"posterior: got 'mean-field' with particles 3"),
        ([PARTICLES, "training.drop_path=0.3"], "tiny", r"drop_path: got 0\.3; the network is an ensemble"),
        (
            [PARTICLES, "training.auxiliary_weight=0.3"],
            "tiny",
            r"auxiliary_weight: got 0\.3; the network is an ensemble, which has no auxiliary head",
        ),
        (
            ["network.particles=2"],
            "ensemble-3.wrn-10-1",
            r"particles: got 2; ensemble-3.wrn-10-1 is an ensemble already",
        ),
        (POSTERIOR, "ensemble-3.wrn-10-1", r"posterior: got 'mean-field'; .* is an ensemble already"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(tmp_path, changes, name, said):
    with pytest.raises(ConfigError, match=said):
        robust_nas.train(
            config(*changes),
            TINY if name == "tiny" else robust_nas.load_architecture(name),
            tmp_path / "model",
        )
    assert list(tmp_path.iterdir()) == []


def test_the_memory_of_a_container_is_its_limit(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("12345\n")
    (tmp_path / "unlimited").write_text("max\n")
    limits = [tmp_path / name for name in ("unlimited", "absent", "memory.max")]
    monkeypatch.setattr(environment, "MEMORY_LIMITS", limits)
    assert memory.memory_of(torch.device("cpu")) == 12345


def test_particles_that_memory_cannot_hold_are_refused_with_the_number_that_fits(tmp_path, monkeypatch):
    params = robust_nas.count(TINY, (1, 8, 8), 10).params
    copies = 3  # weights, gradients, momentum
    assert memory.memory_of(torch.device("cpu")) > 1e8
    monkeypatch.setattr(memory, "memory_of", lambda device: 5 * copies * 4 * params)
    assert memory.training_bytes(params, config().training) == copies * 4 * params
    with pytest.raises(
        ConfigError, match=r"ensemble-6\.tiny: .* the machine has .*got 6 particles; at most 5 fit"
    ):
        robust_nas.train(config("network.particles=6"), TINY, tmp_path / "model")
    with pytest.raises(ConfigError, match=r"ensemble-1000\.dsara-random-5: 624,000 .* at most 5 fit"):
        robust_nas.run(config("network.particles=1000"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_search_does_not_depend_on_what_is_made_of_its_architecture():
    assert SearchJob.of(config(PARTICLES)) == SearchJob.of(config())
    assert robust_nas.config.to_dict(config().network) == {"cells": 4, "channels": 2}
    own = robust_nas.load_architecture("ensemble-2.wrn-10-1")
    assert config().network.made_of(own) is own


def test_a_run_makes_its_architecture_an_ensemble(tmp_path):
    summary = robust_nas.run(config("network.particles=2", "search.epochs=1"), tmp_path / "run")
    found = robust_nas.load_architecture(tmp_path / "run" / "search")
    trained = robust_nas.load_architecture(tmp_path / "run" / "model")
    assert (trained.type, trained.particles, trained.member) == ("ensemble", 2, found)
    assert summary["params"] == 2 * robust_nas.count(found, (1, 8, 8), 10).params
    assert (tmp_path / "run" / "export" / "network.py").is_file()


def test_batch_norms_of_all_members_are_synchronised():
    class Two:
        count = 2

    network = robust_nas.nets.build_network(robust_nas.load_architecture("ensemble-2.wrn-10-1"))
    distribute(network, "synchronised", ALONE)
    assert not any("Synchronised" in type(module).__name__ for module in network.modules())
    distribute(network, "synchronised", Two())
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert all(type(norm).__name__ == "SynchronisedBatchNorm2d" for norm in norms)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["compression.cstar.ratios=[1.5]"], "compression: network.posterior is 'mean-field', and a random"),
        (["evaluation.deployed.samples=8"], "deployed.samples: got 8; .*: an answer takes 2 draws"),
    ],
)
def test_a_run_refuses_what_a_random_network_cannot_do_before_it_searches(tmp_path, more, message):
    with pytest.raises(ConfigError, match=message):
        robust_nas.run(config(*POSTERIOR, *more), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_methods_are_compared_on_the_ensemble_that_the_config_asks_for_and_not_on_a_random_network():
    plain = ("training.drop_path=0", "training.auxiliary_weight=0")
    study = robust_nas.load_comparison(
        "quickstart", ["pgd-at"], ["network.particles=2", *plain], architecture="wrn-10-1"
    )
    assert study.base.has_particles
    random = robust_nas.load_comparison(
        "quickstart", ["pgd-at"], [*POSTERIOR, *plain], architecture="wrn-10-1"
    )
    with pytest.raises(ConfigError, match=r"is random \(2 draws an answer\); a study measures"):
        robust_nas.plan_study(random)
