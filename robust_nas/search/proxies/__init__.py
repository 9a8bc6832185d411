"""Scores of untrained networks: one file a proxy. `PROXIES` knows them by name; params and MACs are the controls."""

from __future__ import annotations

from robust_nas.registry import Registry
from robust_nas.search.proxies.proxy import Proxy

PROXIES = Registry(
    "proxy",
    Proxy,
    "robust_nas.search.proxies",
    {
        "params": "params:ParameterCount",
        "macs": "macs:MACs",
        "synflow": "synflow:SynFlow",
        "jacob-cov": "jacob_cov:JacobCov",
        "naswot": "naswot:NASWOT",
        "snip": "snip:SNIP",
        "grad-norm": "grad_norm:GradNorm",
        "input-gradient-norm": "input_gradient:InputGradientNorm",
        "consistency": "consistency:Consistency",
    },
    group="robust_nas.proxies",
)
