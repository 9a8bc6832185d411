"""How the states of a cell are joined: data of a space. The defaults are DARTS's."""

from __future__ import annotations

from typing import Literal

from robust_nas.config import Options

Inputs = Literal[1, 2]
Aggregation = Literal["sum", "mean"]


class Topology(Options):
    """Inputs of a cell, edges between its states, and the states that form its output."""

    inputs: Inputs = 2  # cells before it whose outputs it sees
    sources: Literal["all", "last"] = "all"  # a node takes every earlier state, or the one before it alone
    aggregation: Aggregation = "sum"  # of the edges into a node
    output: Literal["concat", "last"] = "concat"  # all nodes concatenated, or the last node

    def sources_of(self, node: int) -> range:
        """Return the states that a node may take, by number: the inputs first, then the nodes."""
        before = node + self.inputs
        return range(before) if self.sources == "all" else range(before - 1, before)

    def output_states(self, nodes: int) -> tuple[int, ...]:
        """Return the states that form the output of a cell of `nodes` nodes."""
        states = tuple(range(self.inputs, nodes + self.inputs))
        return states if self.output == "concat" else states[-1:]
