"""Synchronised batch norm: over any split of a batch it is one process's `F.batch_norm` of the whole."""

import pytest
import torch
from in_ranks import in_ranks, results
from torch import nn

from robust_nas.attacks import attack_mode
from robust_nas.attacks.folding import folded
from robust_nas.layers.batch_norm import (
    SynchronisedBatchNorm2d,
    batch_norm,
    local_statistics,
    synchronise,
)
from robust_nas.nets import Supernet
from robust_nas.spaces import load_space

IMAGES, CHANNELS = 7, 3  # 7 images are never split evenly


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def one_norm(ranks, affine):
    """Forward, backward and running statistics of this rank's rows; the plain function where there is one rank."""
    rows = ranks.rows(IMAGES)
    x = (3.0 + 2.0 * draw(IMAGES, CHANNELS, 4, 5))[rows].requires_grad_()
    weight, bias = (
        (draw(CHANNELS).requires_grad_(), draw(CHANNELS).requires_grad_()) if affine else (None, None)
    )
    mean, var = torch.zeros(CHANNELS).double(), torch.ones(CHANNELS).double()
    norm = nn.functional.batch_norm if ranks.count == 1 else batch_norm
    y = norm(x, mean, var, weight, bias, training=True, momentum=0.3, eps=1e-5)
    (y * draw(IMAGES, CHANNELS, 4, 5, 1)[rows, ..., 0]).sum().backward()
    found = {"y": y.detach(), "dx": x.grad, "mean": mean, "var": var}
    if affine:
        found |= dict(zip(("dweight", "dbias"), ranks.all_reduce_sum([weight.grad, bias.grad]), strict=True))
    return found


@pytest.mark.parametrize("affine", [True, False])
def test_it_is_batch_norm_of_the_whole_batch(tmp_path, affine):
    found = results(in_ranks(one_norm, tmp_path, [1, 2, 3], affine=affine))
    (expected,) = found[1]
    for count in (2, 3):
        for name, value in expected.items():
            parts = [one[name] for one in found[count]]
            if name in ("y", "dx"):
                torch.testing.assert_close(torch.cat(parts), value, rtol=1e-12, atol=1e-13)
            else:
                assert all(torch.equal(part, parts[0]) for part in parts), name
                torch.testing.assert_close(parts[0], value, rtol=1e-12, atol=1e-13)


def small():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def modes(ranks):
    """A synchronised net in training, attack and eval mode, and what each mode did to its buffers."""
    torch.manual_seed(0)
    network = small().double()
    if ranks.count > 1:
        synchronise(network)
    x = draw(IMAGES, 1, 6, 6)[ranks.rows(IMAGES)]
    network.train()
    found = {"train": network(x).detach()}
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with attack_mode(network, "batch"):
        found["batch"] = network(x).detach()
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())
    if ranks.first:
        found["eval"] = network.eval()(
            draw(2, 1, 6, 6)
        ).detach()  # by one rank alone: no message is exchanged
    return found | {f"buffer {name}": buffer for name, buffer in before.items()}


def test_every_mode_is_that_of_one_process_and_eval_mode_sends_no_message(tmp_path):
    found = results(in_ranks(modes, tmp_path, [1, 2]))
    (expected,), parts = found[1], found[2]
    for name in ("train", "batch"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), expected[name])
    for name in expected.keys() - {"train", "batch"}:
        torch.testing.assert_close(parts[0][name], expected[name])


def test_conversion_keeps_names_and_tensors():
    network = Supernet(load_space("dsara"), channels=4, cells=4)
    state = network.state_dict()
    count = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert len(local_statistics(network)) == 2 * count
    network.cells[0].eval()
    modes = [module.training for module in network.modules()]
    synchronise(network)
    assert [module.training for module in network.modules()] == modes
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == count
    assert all(type(norm) is SynchronisedBatchNorm2d for norm in norms)
    assert local_statistics(network) == []
    after = network.state_dict()
    assert list(after) == list(state)
    assert all(after[name].data_ptr() == tensor.data_ptr() for name, tensor in state.items())


def test_a_norm_in_two_places_stays_one_and_keeps_its_hooks():
    norm = nn.BatchNorm2d(3, eps=0.1, momentum=None)
    seen = []
    norm.register_forward_hook(lambda *_: seen.append(1))
    network = nn.Sequential(norm, nn.ReLU(), nn.Sequential(norm)).eval()
    expected = network(draw(2, 3, 4, 4).float())
    synchronise(network)
    assert network[0] is network[2][0]
    assert torch.equal(network(draw(2, 3, 4, 4).float()), expected)
    assert len(seen) == 4


def test_attacks_fold_a_synchronised_norm_like_any_other():
    network = small().eval()
    synchronise(network)
    copy, how, _ = folded(network, draw(2, 1, 6, 6).float())
    assert how == "folded"
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
