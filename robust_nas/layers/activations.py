"""Activations as modules; `channels` of the input are for those that have a parameter a channel.

This file needs torch alone: the plain-Python export carries its text.
"""

from __future__ import annotations

from torch import nn


def relu(channels: int) -> nn.Module:
    """Return max(x, 0)."""
    return nn.ReLU()


def silu(channels: int) -> nn.Module:
    """Return x sigmoid(x)."""
    return nn.SiLU()


def gelu(channels: int) -> nn.Module:
    """Return x times the standard normal distribution function of x."""
    return nn.GELU()


def softplus(channels: int) -> nn.Module:
    """Return log(1 + exp(x))."""
    return nn.Softplus()
