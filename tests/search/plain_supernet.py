"""A supernet's pass as a plain loop, and the first steps of its optimisers, for tests against published definitions."""

import torch
import torch.nn.functional as F


def logits(supernet, x, edge):
    """Logits of images, where `edge(cell, number, x)` is what an edge gives of its source."""
    s0 = s1 = supernet.stem(supernet.normalise(x))
    for cell in supernet.cells:
        adapters = [module for module in (cell.preprocess0, cell.preprocess1) if module is not None]
        states = [adapt(s) for adapt, s in zip(adapters, (s0, s1)[-len(adapters) :], strict=True)]
        for node in range(cell.num_nodes):
            total = 0
            for number, (end, source) in enumerate(cell.ends):
                if end == node:
                    total = total + edge(cell, number, states[source])
            states.append(total)
        s0, s1 = s1, torch.cat([states[len(adapters) + node] for node in cell.output], dim=1)
    return supernet.classifier(supernet.before_pooling(s1).mean((2, 3)))


def gradient(supernet, x, labels, edge, wanted):
    """The gradients of the cross-entropy in training mode, None where a parameter is not used."""
    supernet.train()
    loss = F.cross_entropy(logits(supernet, x, edge), labels)
    return torch.autograd.grad(loss, wanted, allow_unused=True)


def adam(parameters, gradients, options):
    """The first step of Adam with weight decay in the gradient; its moments are the gradient and its square."""
    with torch.no_grad():
        for parameter, own in zip(parameters, gradients, strict=True):
            own = own + options.weight_decay * parameter
            parameter.sub_(options.learning_rate * own / (own.abs() + 1e-8))


def sgd(parameters, gradients, options):
    """The first step of SGD, clipped; parameters without a gradient stay."""
    norm = torch.stack([own.square().sum() for own in gradients if own is not None]).sum().sqrt()
    scale = min(1.0, float(options.clip_norm / (norm + 1e-6)))
    with torch.no_grad():
        for parameter, own in zip(parameters, gradients, strict=True):
            if own is not None:
                step = scale * own + options.weight_decay * parameter
                parameter.sub_(options.learning_rate * step)
