"""Compiled input gradients: the same candidates, one compilation for all that is attacked, and when there is none.

Most tests compile without a C++ compiler (`aot_eager`), which runs torch's own kernels and gives the same bits.
"""

import pytest
import torch
from attacked import CLASSES, answered, batch, conv_net, generator
from suite import ATTACKS, changed
from torch._dynamo.utils import counters
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from robust_nas.attacks import (
    APGD,
    FGSM,
    PGD,
    AutoAttack,
    DeepFool,
    Predictor,
    SecondOrder,
    Square,
    Transfer,
    compiling,
)
from robust_nas.attacks.engine import opened
from robust_nas.attacks.folding import _TRACES
from robust_nas.config import check, to_dict
from robust_nas.errors import AttackError, ConfigError
from robust_nas.nets import Supernet
from robust_nas.search.dsara import DSARA
from robust_nas.spaces import load_space

COMPILED = "folded, compiled"


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """The backend that compiles nothing, and no compilation left from before."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    yield
    torch._dynamo.reset()


def compilations():
    return counters["stats"]["unique_graphs"]


def attacked(attack, model, count=20, images=None):
    """The result on some images, answered by the model but for one, with the attack as it is and compiled."""
    x = batch(count=count)[0] if images is None else images
    labels = answered(model, x)
    always = changed(attack, compile="always").run(model, x, labels, generator())
    return always, attack.run(model, x, labels, generator())


# One compilation


def test_one_compilation_serves_every_attack_batch_order_mode_and_weights():
    model = conv_net()
    chosen = {name: attack for name, attack in ATTACKS.items() if not attack.not_compiled}
    kinds = {type(attack).__name__ for attack in chosen.values()}
    assert kinds == {"PGD", "APGD", "CarliniWagner", "FMN", "Joint"}
    for name, attack in chosen.items():
        always, plain = attacked(attack, model)
        assert (name, always.model_form, plain.model_form) == (name, COMPILED, "folded")
        assert torch.equal(always.images, plain.images), name
        assert always.backwards == plain.backwards
    attack = PGD(eps=0.1, steps=2)
    for count in (16, 50, 17, 5, 1):
        always, plain = attacked(attack, model, count)
        assert torch.equal(always.images, plain.images)
        small = "folded, not compiled: fewer than 16 images"
        assert always.model_form == (COMPILED if count >= 16 else small)
    last = batch(count=20)[0].to(memory_format=torch.channels_last)
    assert torch.equal(*(result.images for result in attacked(attack, model, images=last)))
    with torch.inference_mode():
        assert torch.equal(*(result.images for result in attacked(attack, model, images=last.clone())))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2)
    always, plain = attacked(attack, model)
    assert torch.equal(always.images, plain.images)
    assert compilations() == 1


def test_images_of_one_channel_or_side_have_one_stride_whatever_they_come_with():
    x = torch.rand(20, 1, 8, 8)
    others = (x, x.to(memory_format=torch.channels_last), x.as_strided(x.shape, (64, 1, 8, 1)))
    assert {compiling._same_strides(each).stride() for each in others} == {(64, 1, 8, 1)}
    assert all(torch.equal(compiling._same_strides(each), x) for each in others)


def test_low_precision_by_option_or_by_the_caller_is_one_more_compilation():
    model, attack = conv_net(), PGD(eps=0.1, steps=2)
    assert attacked(attack, model)[0].model_form == COMPILED
    assert attacked(changed(attack, precision="bf16"), model)[0].model_form == COMPILED
    with torch.autocast("cpu", torch.bfloat16):
        always, plain = attacked(attack, model, 40)
    assert torch.equal(always.images, plain.images)
    assert compilations() == 2


def test_a_verdict_is_never_of_the_compiled_copy():
    model, (x, labels) = conv_net().eval(), batch(count=20)
    with opened(PGD(eps=0.1, compile="always"), model, x, labels, None) as target:
        assert target.differentiated is not target.network
        target.differentiated = lambda x: pytest.fail("the compiled copy was asked")
        assert torch.equal(target.logits(x), model(x))


# When it compiles


def test_auto_compiles_where_so_many_input_gradients_lie_ahead():
    model, attack = conv_net(), PGD(eps=0.1, steps=2, compile="auto")
    x, _ = batch(count=20)
    labels = answered(model, x)
    plain = changed(attack, compile="never").run(model, x, labels, generator())
    few = "folded, not compiled: {} input gradients lie ahead, 3,000 are needed"
    for ahead, form in ((0, few.format(2)), (2999, few.format("2,999")), (3000, COMPILED)):
        with compiling.many_gradients(ahead):
            found = attack.run(model, x, labels, generator())
        assert found.model_form == form
        assert torch.equal(found.images, plain.images)
    alone = APGD(eps=0.1, steps=500, restarts=2, eot=2)
    assert (alone.input_gradients, changed(alone, loss="dlr-targeted", targets=3).input_gradients) == (
        2000,
        6000,
    )
    assert Square(eps=0.1).input_gradients == 0


def broken(graph, inputs):
    raise RuntimeError("no compiler\nand more")


def wrong(graph, inputs):
    return lambda *args: [output + torch.arange(CLASSES) for output in graph(*args)]


@pytest.mark.parametrize(
    ("backend", "reason"),
    [(broken, "RuntimeError: no compiler"), (wrong, "the compiled copy gives other logits")],
)
def test_where_compiling_fails_auto_goes_on_with_the_reason_and_always_raises(monkeypatch, backend, reason):
    monkeypatch.setattr(compiling, "BACKEND", backend)
    monkeypatch.setattr(compiling, "LEAST_GRADIENTS", 1)
    model, attack = conv_net(), PGD(eps=0.1, steps=2)
    x, _ = batch(count=20)
    labels = answered(model, x)
    found = changed(attack, compile="auto").run(model, x, labels, generator())
    assert found.model_form == f"folded, not compiled: {reason}"
    assert torch.equal(found.images, attack.run(model, x, labels, generator()).images)
    with pytest.raises(
        AttackError, match=f"pgd-2: compile is 'always', but .*: {reason}; allowed here: never, auto"
    ):
        changed(attack, compile="always").run(model, x, labels, generator())
    (compiled,) = _TRACES[model][False][1].compilations.values()
    assert list(compiled._tried.values()) == [reason]  # found out once


class Branching(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = conv_net()

    def forward(self, x):
        return self.inner(x) if x.mean() > 0.5 else -self.inner(x)


def test_what_is_not_traced_is_not_compiled():
    own = Supernet(load_space("dsara"), CLASSES, 3, 2, 4)
    models = {
        "as it is: it is random": Predictor(conv_net(), samples=2),
        "as it is: torch.fx cannot trace it": Branching(),
        "it makes its folded copy itself": own,
    }
    x, labels = batch(count=16)
    for reason, model in models.items():
        with pytest.raises(
            AttackError, match=f"compile is 'always', but the model is not compiled: {reason}"
        ):
            PGD(eps=0.1, steps=1, compile="always")(model, x, labels)
        with compiling.many_gradients(3000):
            form = PGD(eps=0.1, steps=1, compile="auto").run(model, x, labels).model_form
        assert reason in form
        assert form.startswith(("as it is: ", "folded, not compiled: "))
    assert compilations() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGSM(eps=0.1, compile="always"), "compile is 'always', but fold is false"),
        (lambda: PGD(eps=0.1, bn="batch", compile="always"), "'always', but bn is 'batch'"),
        (lambda: Square(eps=0.1, compile="always"), "'always', but the attack takes no input gradients"),
        (lambda: DeepFool(compile="always"), "'always', but the attack takes several gradients"),
        (lambda: SecondOrder(eps=0.1, compile="always"), "'always', but the attack takes second derivatives"),
        (lambda: PGD(eps=0.1, compile="sometimes"), "allowed: never, auto, always"),
        (lambda: AutoAttack(eps=0.1, compile="auto"), "compile"),
        (
            lambda: Transfer(eps=0.1, surrogates=("x",), attack={"name": "pgd", "compile": "auto"}),
            "compile 'auto'; surrogates are read again for every batch",
        ),
        (
            lambda: check(DSARA, {"attack": {"name": "pgd", "eps": 0.1, "compile": "auto"}}, "test"),
            "attack.*a supernet is not compiled: allowed here: never",
        ),
    ],
)
def test_options_that_leave_nothing_to_compile_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_key_is_written_down_where_it_says_something():
    assert "compile" not in to_dict(PGD(eps=0.1))
    assert to_dict(PGD(eps=0.1, compile="auto"))["compile"] == "auto"


# The compiler


def has_compiler():
    try:
        return bool(get_cpp_compiler())
    except InvalidCxxCompiler:
        return False


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler here")
def test_the_compiler_gives_the_gradients_of_the_copy(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3)
        ).eval()
    before = torch.get_rng_state()
    for count in (16, 33):
        x = torch.rand(count, 1, 4, 4, generator=generator())
        labels = model(x).argmax(1)
        with opened(PGD(eps=0.1, compile="always"), model, x, labels, None) as target:
            assert target.model_form == COMPILED
            weights = torch.rand(count, 3, generator=generator())
            found = target.gradient(x, lambda logits: (logits * weights).sum(1))[2]  # noqa: B023
            again = target.gradient(x, lambda logits: (logits * weights).sum(1))[2]  # noqa: B023
        z = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad((model(z) * weights).sum(), z)
        torch.testing.assert_close(found, expected)
        assert torch.equal(found, again)
    assert torch.equal(before, torch.get_rng_state())
    assert compilations() == 1
