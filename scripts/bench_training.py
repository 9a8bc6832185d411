"""What an adversarial training step costs next to its arithmetic: PGD-7 against a clean step, in turn; prints Markdown.

    .venv/bin/python scripts/bench_training.py [--channels 16] [--cells 8] [--batch 32] [--rounds 5] [--device cuda]
    .venv/bin/python scripts/bench_training.py --side 8 --cells 4 --batch 64

The network is ARNAS, with fresh weights, which cost the same as trained ones. A step with all gradients is a forward
pass and two backward passes of equal arithmetic (3 units); a PGD step needs the gradient of the images alone (2). So a
step of training on PGD-7 has (7 * 2 + 3) / 3 = 5.7 times the arithmetic of a clean one. The attack runs on a copy with
batch norms folded, which saves more than arithmetic. On a CPU a training lets depthwise convolutions compute by other
forms; *plain modules* is a bare loop over the network as it is built.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import torch

import robust_nas
from robust_nas.attacks import PGD
from robust_nas.layers.depthwise import quickened
from robust_nas.nets import channels_last
from robust_nas.timing import interleaved
from robust_nas.training import PGDAT, Loss, Natural

STEPS, EPS = 7, 8 / 255
ARITHMETIC = (2 * STEPS + 3) / 3  # of an adversarial step, in clean ones


def main() -> None:
    """Times and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("channels", 16), ("cells", 8), ("batch", 32), ("side", 32), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    architecture = robust_nas.load_architecture("arnas")
    assert isinstance(architecture, robust_nas.CellArchitecture)  # noqa: S101
    architecture = architecture.resized(options.cells, options.channels)
    shape = (3, options.side, options.side)
    network = channels_last(
        robust_nas.build_network(architecture, input_shape=shape, seed=0).to(device)
    ).train()
    optimiser = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator(device).manual_seed(0)
    images = torch.rand(options.batch, *shape, device=device, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (options.batch,), device=device, generator=generator)
    attack = PGD(eps=EPS, step_size=EPS / 4, steps=STEPS, keep="last")

    def plain_step(loss: Loss) -> Callable[[], None]:
        def call() -> None:
            value = loss(network, images, labels, generator).loss
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()

        return call

    def step(loss: Loss) -> Callable[[], None]:
        def call() -> None:
            with quickened(network):
                plain_step(loss)()

        return call

    def attacked(found: PGD) -> Callable[[], object]:
        return lambda: found(network, images, labels, generator)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    clean, adversarial = "clean step", f"PGD-{STEPS} step"
    as_it_is = attack.model_copy(update={"fold": False})
    timings = interleaved(
        {
            clean: step(Natural()),
            adversarial: step(PGDAT(attack=attack)),
            f"{clean}, plain modules": plain_step(Natural()),
            f"{adversarial}, plain modules": plain_step(PGDAT(attack=as_it_is)),
            f"PGD-{STEPS} alone, folded": attacked(attack),
            f"PGD-{STEPS} alone, on the network as it is": attacked(as_it_is),
        },
        options.rounds,
        clock=clock,
    )
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()} CPU, one thread"
    )
    print(
        f"{architecture.name}, {architecture.describe()}, batch {options.batch}, {shape}; {where}; ", end=""
    )
    print(f"torch {torch.__version__}; {options.rounds} rounds in turn\n")
    print("| work | median s | least and most s | in clean steps (median of rounds) |\n|---|---|---|---|")
    for name, timing in timings.items():
        spread = f"{timing.minimum:.3f} to {max(timing.seconds):.3f}"
        print(f"| {name} | {timing.median:.3f} | {spread} | {timing.ratio(timings[clean]):.2f} |")
    ratio = timings[adversarial].ratio(timings[clean])
    print(f"\n{ratio:.2f} clean steps, {ratio / ARITHMETIC:.2f} times the arithmetic ({ARITHMETIC:.2f}).")


if __name__ == "__main__":
    main()
