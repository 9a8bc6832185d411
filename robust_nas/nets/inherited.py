"""The network of an architecture with the weights that it inherits from a supernet.

A sub-network keeps the chosen edges of every node with their operation, weight 1 each; all other edges are absent. It
has the supernet's own number of cells and channels, for every size of the architecture. A pooling keeps the batch norm
that the supernet puts behind it. The supernet's batch norm statistics belong to the mixture of all operations, so each
sub-network gets its own, the plain mean over batches of clean, unaugmented images (our choice).
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_nas.nets.build import build_network
from robust_nas.nets.network import CellNetwork, NetworkCell, Node
from robust_nas.nets.supernet import Supernet, SupernetCell
from robust_nas.spaces import CellArchitecture

if TYPE_CHECKING:
    from robust_nas.data import Images


def sub_network(supernet: Supernet, architecture: CellArchitecture) -> CellNetwork:
    """Return the network of an architecture's genotype at the supernet's size, of copies of the supernet's modules."""
    space = supernet.space
    cells = cast("list[SupernetCell]", supernet.cells)
    sized = architecture.resized(len(cells), cells[0].channels // space.layout.filters[0])
    network = build_network(
        sized,
        input_shape=(cast("nn.Conv2d", supernet.stem[0]).in_channels, 1, 1),
        classes=supernet.classifier.out_features,
        affine=False,
    )
    for name in ("normalise", "stem", "before_pooling", "classifier"):
        setattr(network, name, copy.deepcopy(getattr(supernet, name)))
    for cell, target in zip(cells, cast("list[NetworkCell]", network.cells), strict=True):
        target.preprocess0 = copy.deepcopy(cell.preprocess0)
        target.preprocess1 = copy.deepcopy(cell.preprocess1)
        for number, node in enumerate(architecture.cell(cell.kind).nodes):
            chosen = [
                cast("nn.ModuleList", cell.edges[space.edges.index((number, edge.source))])[
                    space.operations.index(edge.operation)
                ]
                for edge in node
            ]
            target.nodes[number] = Node(
                [copy.deepcopy(module) for module in chosen],
                [edge.source for edge in node],
                space.topology.aggregation,
            )
    return network.to(next(supernet.parameters()).device)


def estimate_statistics(network: nn.Module, images: Images, batch_size: int) -> None:
    """Replace the batch norm statistics by the mean over batches of clean `images`; leave the network in eval mode.

    Batches are of at most `batch_size` images and of equal size, up to one image.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over the batches
    network.train()
    with torch.no_grad():
        for indices in torch.tensor_split(torch.arange(len(images)), math.ceil(len(images) / batch_size)):
            network(images.float(indices).contiguous(memory_format=torch.channels_last))
    network.eval()
