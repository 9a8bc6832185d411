"""The sections of a report, one file each: from the records of a run folder to an answer, blocks and limits.

A section for a new verb is one file and one line here. It returns None where the folder has nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from robust_nas.workflows.report.blocks import Section
from robust_nas.workflows.report.part import Part
from robust_nas.workflows.report.sections.attack_set import attack_set
from robust_nas.workflows.report.sections.benchmark import benchmark
from robust_nas.workflows.report.sections.compression import compression
from robust_nas.workflows.report.sections.controls import controls
from robust_nas.workflows.report.sections.defence import defence
from robust_nas.workflows.report.sections.distillation import distillation
from robust_nas.workflows.report.sections.evaluation import evaluation
from robust_nas.workflows.report.sections.generator import generator
from robust_nas.workflows.report.sections.pipeline import pipeline
from robust_nas.workflows.report.sections.ranking import ranking
from robust_nas.workflows.report.sections.search import search
from robust_nas.workflows.report.sections.training import training

Make: TypeAlias = Callable[[Part], Section | None]

SECTIONS: tuple[Make, ...] = (
    pipeline,
    attack_set,
    benchmark,
    compression,
    defence,
    distillation,
    generator,
    ranking,
    search,
    controls,
    training,
    evaluation,
)
