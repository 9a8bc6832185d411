"""Edges that compute nothing are found, and what a network computes stays."""

import itertools

import pytest
import torch

from robust_nas.nets import build_network
from robust_nas.spaces import NASBench201Architecture, load_architecture
from robust_nas.spaces.live_edges import live


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (  # node 1 has no input, so edges from it are dead
            "|none~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|avg_pool_3x3~1|skip_connect~2|",
            "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|",
        ),
        (  # node 2 is not used by the output, so edges into it are dead, and then those into node 1
            "|nor_conv_1x1~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|",
            "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
        ),
    ],
)
def test_dead_edges_become_none(cell, expected):
    assert live(NASBench201Architecture.from_string(cell)).string == expected


def test_cells_in_which_all_edges_compute_stay_as_they_are():
    assert live(load_architecture("darts_v2")) == load_architecture("darts_v2")


def test_an_edge_stays_exactly_where_the_output_depends_on_it():
    """Of all cells of two operations: an operation is live where its weights have a gradient."""
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for operations in itertools.product(["none", "nor_conv_1x1"], repeat=6):
        text = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*operations)
        architecture = NASBench201Architecture.from_string(text, cells=3, channels=2)
        network = build_network(architecture, input_shape=(3, 8, 8), classes=2).double()
        edges = [edge for node in network.cells[0].nodes for edge in node]
        network(x).sum().backward()
        reached = [
            any(p.grad is not None and bool(p.grad.ne(0).any()) for p in edge[1].parameters())
            for edge in edges
            if isinstance(edge, torch.nn.Sequential)
        ]
        kept = live(architecture).genotype[0].operations()
        assert reached == [kept[i] != "none" for i in range(6) if operations[i] != "none"], text
