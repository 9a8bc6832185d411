"""Small models of every family and form that the tests of the exports share."""

import torch

from robust_nas.layers.factorised import rebuild
from robust_nas.nets import Model, ModelDescription, build_network
from robust_nas.nets.model import StoredForm
from robust_nas.spaces import (
    Architecture,
    EnsembleArchitecture,
    MLPArchitecture,
    ResidualArchitecture,
    Size,
    load_space,
    sample,
)

SHAPE = (1, 9, 8)
# A seed with every operation, in fewer nodes than the space has.
CELLS = sample(load_space("dsara", {"nodes": 2}), 2, size=Size(cells=3, channels=3))
RESIDUAL = ResidualArchitecture(name="found", stem=4, depths=(1, 1), widths=(4, 6))
ROBUST = ResidualArchitecture(name="found", block="robust-res", depths=(1, 1), widths=(16, 24), scales=3)
MLP = MLPArchitecture(name="found", depth=2, width=5, activation="softplus", initialisation="ntk")
GDWS = ("stages.0.0.conv1", "gdws", (1, 3, 0, 2)), ("stages.1.0.conv2", "gdws", (2,) * 6)
FOLDED = ("stages.0.0.conv1.pointwise", "biased", ()), ("stages.0.0.norm2", "identity", ())
TUCKER = ("stages.1.0.conv1", "tucker-2", (3, 4)), ("stages.1.0.conv1.core", "gdws", (1, 2, 1))
LOW = ("stages.1.0.shortcut", "low-rank", (2,)), ("classifier", "low-rank", (2,))
SPARTA = ResidualArchitecture(name="found", stem=4, depths=(1, 2), widths=(4, 6), activation="sparta")
ENSEMBLE = EnsembleArchitecture(name="found", member=RESIDUAL, particles=2)
MODELS = {
    "cells": (CELLS, ()),
    "residual": (RESIDUAL, ()),
    "robust-res": (ROBUST, ()),
    "mlp": (MLP, ()),
    "ensemble": (ENSEMBLE, ()),
    "sparta": (SPARTA, ()),
    "sparta cells": (CELLS.with_options(activation="sparta-1x1"), ()),
    "compressed": (RESIDUAL, (*GDWS, *FOLDED, *TUCKER, *LOW)),
}


def make(architecture: Architecture = CELLS, forms: tuple[tuple, ...] = (), **changes: object) -> Model:
    layers = tuple(StoredForm(name=name, form=form, numbers=numbers) for name, form, numbers in forms)
    description = ModelDescription(
        **{
            "input_shape": SHAPE,
            "class_names": ("a", "b", "c"),
            "mean": (1 / 3,),
            "std": (0.4,),
            "layers": layers,
            **changes,
        }
    )
    network = build_network(architecture, input_shape=SHAPE, classes=3, mean=(1 / 3,), std=(0.4,), seed=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rebuild(network, description.forms)
        with torch.no_grad():
            network.train()(torch.rand(8, *SHAPE))
    return Model(network.eval(), architecture, description)
