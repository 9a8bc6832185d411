"""Inputs that fool a model: one file per attack family; the option values are callable."""

from robust_nas.attacks.options import FGSM, FGSMRS, NFGSM, PGD, Attack

__all__ = ["FGSM", "FGSMRS", "NFGSM", "PGD", "Attack"]
