"""Scores of untrained networks: one file a proxy. `PROXIES` knows them by name; the parameter count is the control."""

from __future__ import annotations

from robust_nas.registry import Registry
from robust_nas.search.proxies.proxy import Proxy

PROXIES = Registry(
    "proxy",
    Proxy,
    "robust_nas.search.proxies",
    {"params": "params:ParameterCount", "synflow": "synflow:SynFlow", "jacob-cov": "jacob_cov:JacobCov"},
    group="robust_nas.proxies",
)
