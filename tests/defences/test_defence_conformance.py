"""Every registered defence keeps the protocol: what attacks meet, model folders, folding, `robust-nas defend`.

A defence gets its case in `CASES`: options and calibrated values for images 1 x 8 x 8 of 4 classes.
"""

import json
import subprocess
import sys

import pytest
import torch
from cases import config
from safetensors.torch import load_file

import robust_nas
from robust_nas.attacks import APGD, Predictor
from robust_nas.attacks.folding import folded
from robust_nas.defences import DEFENCES, Defended, StoredDefence
from robust_nas.errors import ConfigError
from robust_nas.evaluation.accuracy import judge
from robust_nas.nets import inference_state, read_model, save_model
from robust_nas.nets.digest import model_digest

CASES = {  # name -> options, calibrated values
    "blur": ({"sigma": 0.6}, {}),
    "jpeg": ({"quality": 40}, {}),
    "crop-resize": ({"share": 0.7, "samples": 3}, {}),
    "feature-squeezing": ({"fpr": 0.25}, {"threshold": 0.05, "channels": 1}),
    "squeezer": ({"by": "bit-3"}, {}),
    "randomized-smoothing": ({"sigma": 0.2, "samples": 3}, {}),
    "rse": ({"samples": 3}, {}),
}
OTHER = {  # name -> options, each of which decides the answers
    "blur": [{"sigma": 0.61}],
    "jpeg": [{"quality": 41}],
    "crop-resize": [{"share": 0.6}, {"samples": 4}],
    "feature-squeezing": [{"squeezers": ["bit-2"]}],
    "squeezer": [{"by": "median-2"}],
    "randomized-smoothing": [{"sigma": 0.3}, {"samples": 4}],
    "rse": [{"std_init": 0.3}, {"std_inner": 0.2}, {"samples": 4}],
}
EPS = 0.1
every = pytest.mark.parametrize("name", CASES)
deterministic = pytest.mark.parametrize("name", [name for name in CASES if not DEFENCES.get(name).random])
random = pytest.mark.parametrize("name", [name for name in CASES if DEFENCES.get(name).random])


def test_every_defence_has_a_case():
    assert CASES.keys() == OTHER.keys() == set(DEFENCES.names())


@pytest.fixture
def plain(model_folder):
    return read_model(model_folder)


@pytest.fixture
def images():
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def wrapped(name, network):
    options, values = CASES[name]
    return DEFENCES.make(name, **options).wrap(network, values)


def answers(module, x):
    """Return the logits of one pass, with the draws of one seed."""
    torch.manual_seed(0)
    return module(x)


def gradient(module, x):
    """Return the input gradient of a loss of all classes, with the draws of one seed."""
    x = x.clone().requires_grad_()
    torch.manual_seed(0)
    torch.nn.functional.cross_entropy(module(x), torch.arange(len(x)) % 4).backward()
    return x.grad


@every
def test_its_logits_are_finite_and_its_gradient_is_of_use(name, plain, images):
    module = wrapped(name, plain.network)
    defence = DEFENCES.get(name)
    logits = answers(module, images)
    assert logits.shape == (6, 4 + defence.abstains)
    assert logits.isfinite().all()
    assert (module.samples is None) != defence.random
    found = gradient(module, images)
    assert found.shape == images.shape
    assert found.isfinite().all()
    assert (found.flatten(1).abs().sum(1) > 0).all()
    assert (answers(module, images[:1]).shape) == (1, logits.shape[1])


@every
def test_the_network_is_shared_and_left_as_it_was(name, plain, images):
    network = plain.network
    for training in (True, False):
        network.train(training)
        before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        module = wrapped(name, network)
        assert module.training is network.training is training
        assert module.module is network
        assert all(a is b for a, b in zip(network.parameters(), module.module.parameters(), strict=True))
        network.eval()
        given = images.clone()
        gradient(module, given)
        network.zero_grad()
        assert torch.equal(given, images)
        assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@every
def test_a_model_folder_gives_the_same_module_bit_for_bit(name, plain, images, tmp_path):
    options, values = CASES[name]
    defence = DEFENCES.make(name, **options)
    module = defence.wrap(plain.network, values)
    stored = StoredDefence.of(defence, values, None, plain.digest)
    description = plain.description.model_copy(update={"defence": stored})
    save_model(tmp_path / "made", plain.architecture, inference_state(module), description)
    found = read_model(tmp_path / "made")
    assert isinstance(found.network, Defended)
    assert not found.network.training
    assert torch.equal(answers(found.network, images), answers(module, images))
    assert torch.equal(gradient(found.network, images), gradient(module, images))
    assert found.undefended.digest == plain.digest
    assert model_digest(found.network) == model_digest(module)


@every
def test_the_digest_knows_every_option_and_value(name, plain):
    options, values = CASES[name]
    others = [(options | other, values) for other in OTHER[name]]
    others += [(options, values | {key: value + 0.125}) for key, value in values.items()]
    modules = [plain.network, wrapped(name, plain.network)]
    modules += [DEFENCES.make(name, **each).wrap(plain.network, numbers) for each, numbers in others]
    assert len({model_digest(module) for module in modules}) == len(modules)


@deterministic
def test_a_deterministic_one_repeats_itself_and_takes_each_image_alone(name, plain, images):
    module = wrapped(name, plain.network)
    logits = module(images)
    torch.rand(1)
    assert torch.equal(module(images), logits)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.allclose(module(images[order]), logits[order], atol=1e-5)


@random
def test_a_random_one_draws_in_every_pass_and_follows_the_global_seed(name, plain, images):
    module = wrapped(name, plain.network)
    first, second = answers(module, images), module(images)
    assert not torch.equal(first, second)
    assert torch.equal(answers(module, images), first)
    assert module.samples >= 1


@every
def test_a_folded_copy_has_its_logits_and_gradients_or_there_is_none(name, plain, images):
    module = wrapped(name, plain.network)
    found = folded(module, images)
    if found.network is None:
        assert found.model_form.startswith("as it is: ")
        return
    assert torch.allclose(found.network(images), module(images), atol=1e-5)
    own = gradient(module, images)
    assert torch.allclose(gradient(found.network, images), own, atol=1e-4 * float(own.abs().max()))


@every
def test_an_attack_follows_its_gradient_and_stays_in_the_ball(name, plain, images):
    module = wrapped(name, plain.network)
    labels = module(images).argmax(1) % 4
    modes = [each.training for each in module.modules()]
    attack = APGD(eps=EPS, steps=4, eot=2 if module.samples else 1)
    made = attack.run(module, images, labels, torch.Generator().manual_seed(0)).images
    assert (made - images).abs().max() <= EPS + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1
    assert [each.training for each in module.modules()] == modes
    assert not any(parameter.grad is not None for parameter in module.parameters())
    judged = judge(Predictor.of(module), made, labels)
    assert judged.logits.shape == (6, 4 + module.abstains)


@every
def test_one_defence_is_put_around_a_network(name, plain):
    with pytest.raises(ConfigError, match=f"defence {name}: the network has a defence already"):
        wrapped(name, wrapped("blur", plain.network))


def test_one_that_calibrates_is_refused_without_values(plain):
    for name in CASES:
        if DEFENCES.get(name).calibrates:
            with pytest.raises(ConfigError, match="has not been calibrated"):
                DEFENCES.make(name, **CASES[name][0]).wrap(plain.network)


def test_options_are_read_without_torch():
    code = (
        "import json, sys; from robust_nas.defences import DEFENCES\n"
        "for name, options in json.loads(sys.argv[1]).items(): DEFENCES.make(name, **options)\n"
        "assert 'torch' not in sys.modules"
    )
    given = json.dumps({name: options for name, (options, _) in CASES.items()})
    done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    network = robust_nas.ResidualArchitecture(name="small", stem=4, depths=(1,), widths=(4,))
    return robust_nas.train(config("training.epochs=1"), network, folder)


class StoppedError(Exception):
    pass


@every
def test_killed_when_its_model_is_written_it_resumes_to_the_same_bits(name, trained, tmp_path, monkeypatch):
    options, _ = CASES[name]
    given = robust_nas.defence_config(trained, name, [f"{key}={value}" for key, value in options.items()])
    made = robust_nas.defend(given, trained, tmp_path / "made")

    def kill(*parts):
        save_model(*parts)
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(robust_nas.nets, "save_model", kill)
        with pytest.raises(StoppedError):
            robust_nas.defend(given, trained, tmp_path / "cut")
    assert not (tmp_path / "cut" / "result.json").exists()
    (tmp_path / "cut" / "model" / "model.safetensors").write_bytes(b"half")
    again = robust_nas.defend(given, trained, tmp_path / "cut", mode="resume")
    assert again == made
    assert again["digest"] == read_model(tmp_path / "cut" / "model").digest != read_model(trained).digest
    for file in ("model/model.json", "model/recipe.yaml", "defence.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "made" / file).read_bytes()
    one, other = (load_file(tmp_path / each / "model" / "model.safetensors") for each in ("cut", "made"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
