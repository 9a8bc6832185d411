"""Every torch module: operations, the supernet, networks from an architecture; saving and loading model folders."""

from robust_nas.nets.build import build_network, channels_last
from robust_nas.nets.ensemble import ParticleEnsemble
from robust_nas.nets.mean_field import MeanFieldNetwork
from robust_nas.nets.mlp import MLPNetwork
from robust_nas.nets.model import Model, ModelDescription, inference_state, load_model, read_model, save_model
from robust_nas.nets.network import CellNetwork
from robust_nas.nets.residual import ResidualNetwork
from robust_nas.nets.sparta import extract_sparta, load_sparta, replace_activations
from robust_nas.nets.supernet import Supernet

__all__ = [
    "CellNetwork",
    "MLPNetwork",
    "MeanFieldNetwork",
    "Model",
    "ModelDescription",
    "ParticleEnsemble",
    "ResidualNetwork",
    "Supernet",
    "build_network",
    "channels_last",
    "extract_sparta",
    "inference_state",
    "load_model",
    "load_sparta",
    "read_model",
    "replace_activations",
    "save_model",
]
