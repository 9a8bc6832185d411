"""What a training step costs next to its arithmetic: PGD-7, and every training method, against a clean step, in turn.

    .venv/bin/python scripts/bench_training.py [--channels 8] [--cells 4] [--batch 32] [--rounds 3] [--device cuda]
    .venv/bin/python scripts/bench_training.py --architecture wrn-10-1 --methods trades,free-at,pgd-at+awp
    .venv/bin/python scripts/bench_training.py --side 8 --cells 4 --batch 64 --methods none

Prints Markdown. The network is ARNAS, or the one that is named, with fresh weights, which cost the same as trained
ones. The unit of arithmetic is a forward pass. A step with all gradients is a forward pass and two backward passes of
equal arithmetic (3 units); a PGD step needs the gradient of the images alone (2). So a step of training on PGD-7 has
(7 * 2 + 3) / 3 = 5.7 times the arithmetic of a clean one. The attack runs on a copy with batch norms folded, which
saves more than arithmetic. On a CPU a training lets depthwise convolutions compute by other forms; *plain modules* is a
bare loop over the network as it is built.

Methods (`--methods`: short names as in `robust-nas compare`; all losses, steps and AWP by default; or none) have their
published inner attacks, and the arithmetic that their own `passes` say. The arithmetic of a double backward takes
longer in torch than that of a backward pass. Its floor is what bare torch takes for one, without any of our code, in
units of its arithmetic: a gradient penalty in training mode (6 units), and Hessian-vector products in eval mode with
frozen weights (2 each, behind a forward pass and a gradient).
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import robust_nas
from robust_nas.attacks import PGD, attack_mode, inherit
from robust_nas.config import check
from robust_nas.layers.depthwise import quickened
from robust_nas.nets import channels_last
from robust_nas.timing import Timing, interleaved
from robust_nas.training import LOSSES, PGDAT, STEPS, Batch, Loss, Natural, Training, TrainingContext
from robust_nas.training.loss import STEP_PASSES
from robust_nas.training.method import TrainingMethod, keys_of
from robust_nas.training.steps.standard import Standard

STEPS_OF_PGD, EPS = 7, 8 / 255
ARITHMETIC = (2 * STEPS_OF_PGD + 3) / 3  # of an adversarial step, in clean ones
PRODUCTS = 4  # of the Hessian, of the floor
CLEAN = "clean step"
Calls = dict[str, Callable[[], object]]


class Bench:
    """A network with a batch of random images, and what is timed on them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device, self.rounds = torch.device(options.device), options.rounds
        architecture = robust_nas.load_architecture(options.architecture)
        if isinstance(architecture, robust_nas.CellArchitecture):
            architecture = architecture.resized(options.cells, options.channels)
        shape = (3, options.side, options.side)
        built = robust_nas.build_network(architecture, input_shape=shape, seed=0).to(self.device)
        self.network = channels_last(built).train()
        self.optimiser = torch.optim.SGD(self.network.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
        self.generator = torch.Generator(self.device).manual_seed(0)
        images = torch.rand(options.batch, *shape, device=self.device, generator=self.generator)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(10, (options.batch,), device=self.device, generator=self.generator)
        where = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else f"{platform.machine()} CPU, one thread"
        )
        self.title = (
            f"{architecture.name}, {architecture.describe()}, batch {options.batch}, {shape}; {where}; "
            f"torch {torch.__version__}; {options.rounds} rounds in turn"
        )

    def clock(self) -> float:
        """Return CPU time, on a GPU the time of day when it has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def timed(self, calls: Calls) -> dict[str, Timing]:
        """Return the timings of calls, in turn."""
        return interleaved(calls, self.rounds, clock=self.clock)

    def plain_step(self, loss: Callable[[], Tensor]) -> Callable[[], None]:
        """Return a bare step of the optimiser by a loss."""

        def call() -> None:
            value = loss()
            self.optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()

        return call

    def quick(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return a call in which depthwise convolutions compute as in a training."""

        def quickly() -> None:
            with quickened(self.network):
                call()

        return quickly

    def value(self, loss: Loss) -> Callable[[], Tensor]:
        """Return what computes a loss of the batch."""
        return lambda: loss(self.network, self.images, self.labels, self.generator).loss

    def step_of(self, method: TrainingMethod) -> Callable[[], None]:
        """Return one batch of a training by a method, as the loop takes it."""
        training = TrainingContext(
            network=self.network,
            loss=method.loss,
            generator=self.generator,
            batch_size=len(self.images),
            optimiser=self.optimiser,
        )
        hooks = [hook.start(training) for hook in method.hooks]
        training.hooks.extend(hooks)
        step = method.step.start(training, hooks)
        batch = Batch(self.images, self.labels, torch.arange(len(self.images)))

        def call() -> None:
            for _ in range(step.replays):
                self.network.train()
                self.optimiser.zero_grad()
                for hook in hooks:
                    hook.before_step(step.attacked(batch))
                step.gradients(batch)
                for hook in reversed(hooks):
                    hook.after_backward()
                self.optimiser.step()

        return self.quick(call)

    def penalty(self) -> Tensor:
        """Return the cross-entropy and the squared gradient of the images: 3 units, and 3 of the penalty."""
        x = self.images.detach().clone().requires_grad_()
        loss = nn.functional.cross_entropy(self.network(x), self.labels)
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        return loss + gradient.square().sum()

    def products(self) -> None:
        """Take a gradient of the images and its products with the Hessian: 2 units, and 2 each."""
        x = self.images.detach().clone().requires_grad_()
        with attack_mode(self.network):
            loss = nn.functional.cross_entropy(self.network(x), self.labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
            for _ in range(PRODUCTS):
                torch.autograd.grad(gradient, x, gradient.detach(), retain_graph=True)


def main() -> None:
    """Times and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("channels", 8), ("cells", 4), ("batch", 32), ("side", 32), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--architecture", default="arnas")
    every = [*LOSSES.names(), *(name for name in STEPS.names() if STEPS.get(name) is not Standard)]
    parser.add_argument("--methods", default=",".join([*every, "pgd-at+awp"]))
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options)
    print(f"{bench.title}\n")
    print_attacks(bench)
    if options.methods != "none":
        with inherit({"norm": "linf", "eps": EPS}):
            methods = {
                name: check(TrainingMethod, keys_of(name), f"method {name}")
                for name in options.methods.split(",")
            }
            print_methods(bench, methods)


def print_attacks(bench: Bench) -> None:
    """Time and print training on PGD-7 and its parts."""
    attack = PGD(eps=EPS, step_size=EPS / 4, steps=STEPS_OF_PGD, keep="last")
    as_it_is = attack.model_copy(update={"fold": False})

    def attacked(found: PGD) -> Callable[[], object]:
        return lambda: found(bench.network, bench.images, bench.labels, bench.generator)

    adversarial = f"PGD-{STEPS_OF_PGD} step"
    timings = bench.timed(
        {
            CLEAN: bench.quick(bench.plain_step(bench.value(Natural()))),
            adversarial: bench.quick(bench.plain_step(bench.value(PGDAT(attack=attack)))),
            f"{CLEAN}, plain modules": bench.plain_step(bench.value(Natural())),
            f"{adversarial}, plain modules": bench.plain_step(bench.value(PGDAT(attack=as_it_is))),
            f"PGD-{STEPS_OF_PGD} alone, folded": attacked(attack),
            f"PGD-{STEPS_OF_PGD} alone, on the network as it is": attacked(as_it_is),
        }
    )
    print("| work | median s | least and most s | in clean steps (median of rounds) |\n|---|---|---|---|")
    for name, timing in timings.items():
        spread = f"{timing.minimum:.3f} to {max(timing.seconds):.3f}"
        print(f"| {name} | {timing.median:.3f} | {spread} | {timing.ratio(timings[CLEAN]):.2f} |")
    ratio = timings[adversarial].ratio(timings[CLEAN])
    print(f"\n{ratio:.2f} clean steps, {ratio / ARITHMETIC:.2f} times the arithmetic ({ARITHMETIC:.2f}).")


def print_methods(bench: Bench, methods: Mapping[str, TrainingMethod]) -> None:
    """Time and print a batch of every method, and the floors of a double backward."""
    penalty, products = "bare torch: gradient penalty", f"bare torch: {PRODUCTS} Hessian-vector products"
    floors: Calls = {
        penalty: bench.quick(bench.plain_step(bench.penalty)),
        products: bench.quick(bench.products),
    }
    units: dict[str, float] = {penalty: 2 * STEP_PASSES, products: 2 + 2 * PRODUCTS}
    calls: Calls = {CLEAN: bench.step_of(TrainingMethod(loss=Natural())), **floors}
    validated = {"validation_attack": {"name": "pgd"}}
    for name, method in methods.items():
        recipe = {"loss": method.loss, "step": method.step, "hooks": method.hooks, "epochs": 1}
        units[name] = check(Training, {**recipe, **validated}, f"method {name}").passes
        calls[name] = bench.step_of(method)
    timings = bench.timed(calls)
    arithmetic = {name: found / STEP_PASSES for name, found in units.items()}
    ratios = {name: timings[name].ratio(timings[CLEAN]) for name in arithmetic}
    quotients = {name: ratios[name] / arithmetic[name] for name in arithmetic}
    print("\n| method | median s | in clean steps | arithmetic | quotient | floor of a double backward |")
    print("|---|---|---|---|---|---|")
    print(f"| {CLEAN} | {timings[CLEAN].median:.3f} | 1 | 1 | 1 | |")
    for name in arithmetic:
        floor = ""
        if name in methods:
            attack = methods[name].loss.inner_attack
            if methods[name].loss.twice_differentiated:
                floor = f"{quotients[penalty]:.2f}"
            elif attack is not None and attack.twice_differentiated:
                floor = f"{quotients[products]:.2f}"
        numbers = f"{timings[name].median:.3f} | {ratios[name]:.2f} | {arithmetic[name]:.2f}"
        print(f"| {name} | {numbers} | {quotients[name]:.2f} | {floor} |")


if __name__ == "__main__":
    main()
