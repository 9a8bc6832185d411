"""Which configurations a study compares: one file a design. `DESIGNS` knows them by name. None of them needs torch."""

from robust_nas.registry import Registry
from robust_nas.studies.design.changes import varied
from robust_nas.studies.design.design import Configuration, Design, InputShape
from robust_nas.studies.design.union import unite

DESIGNS = Registry(
    "design",
    Design,
    "robust_nas.studies.design",
    {
        "grid": "grid:GridDesign",
        "iso": "iso_budget:IsoBudgetDesign",
        "ratio": "ratio:RatioDesign",
        "list": "explicit:ExplicitDesign",
        "methods": "methods:MethodsDesign",
    },
    group="robust_nas.designs",
)

__all__ = ["DESIGNS", "Configuration", "Design", "InputShape", "unite", "varied"]
