"""Other code asks a method by its attributes: nobody asks for a method's class or name where its kind would do."""

import ast

import pytest
from package_files import modules

from robust_nas.attacks import ATTACKS
from robust_nas.compression import COMPRESSORS
from robust_nas.data import DATASETS
from robust_nas.defences import DEFENCES
from robust_nas.distillation import DISTILLERS
from robust_nas.evaluation import CHECKS
from robust_nas.figures import FIGURES
from robust_nas.kernels import KERNELS
from robust_nas.logger import LOGGERS
from robust_nas.operations import ACTIVATIONS, OPERATIONS
from robust_nas.search import EVALUATORS, PROXIES, RANKINGS, SEARCH_FINDINGS, STRATEGIES, TABLES
from robust_nas.spaces import FAMILIES
from robust_nas.studies.design import DESIGNS
from robust_nas.studies.rules import RULES
from robust_nas.training import HOOKS, LOSSES, SCHEDULES, STEPS

REGISTRIES = (
    ATTACKS, COMPRESSORS, DATASETS, DEFENCES, CHECKS, FIGURES, ACTIVATIONS, OPERATIONS, EVALUATORS, PROXIES, RANKINGS,
    STRATEGIES, FAMILIES, DESIGNS, RULES, HOOKS, LOSSES, SCHEDULES, STEPS, TABLES, SEARCH_FINDINGS,
    KERNELS, DISTILLERS, LOGGERS,
)  # fmt: skip
CLASSES = {target.partition(":")[2] for registry in REGISTRIES for target in registry.built_in.values()}
NAMES = {name for registry in REGISTRIES for name in registry.built_in}
HOMES = {target.partition(":")[0] for registry in REGISTRIES for target in registry.built_in.values()}
# Names that mean nothing but their method; the others are words of many things, such as "none" and "params".
LABELS = {
    name
    for registry in (ATTACKS, LOSSES, HOOKS, OPERATIONS, ACTIVATIONS, STRATEGIES)
    for name in registry.built_in
}
LABELS -= {"none", "random", "noise", "natural", "transfer"}


def offences(tree, *, of_a_method=False):
    """Yield the lines that ask whether something is one certain method, by its class or by its name.

    A method's own file may have words of its own that are spelt like another method.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            asked = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
            asked |= {part.attr for part in ast.walk(node.args[1]) if isinstance(part, ast.Attribute)}
            if asked & CLASSES:
                yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            named = any(isinstance(s, ast.Attribute) and s.attr in ("name", "label", "type") for s in sides)
            texts = {part.value for s in sides for part in ast.walk(s) if isinstance(part, ast.Constant)}
            if (named and texts & NAMES) or (not of_a_method and texts & LABELS):
                yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not of_a_method:
            asks = node.func.attr in ("count", "index", "startswith", "endswith")
            if (
                asks
                and {
                    part.value
                    for arg in node.args
                    for part in ast.walk(arg)
                    if isinstance(part, ast.Constant)
                }
                & LABELS
            ):
                yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.MatchClass) and ast.unparse(node.cls) in CLASSES:
            yield node.lineno, ast.unparse(node.cls)


@pytest.mark.parametrize("name", modules())
def test_no_file_asks_for_one_certain_method(name):
    of_a_method = any(name.endswith(f".{home}") for home in HOMES)
    assert list(offences(ast.parse(modules()[name].read_text()), of_a_method=of_a_method)) == []


def test_an_offence_is_found():
    lines = (
        "if isinstance(attack, PGD | APGD): pass",
        "if step.attack.name == 'square': pass",
        "label = loss.name in ('trades', 'x')",
        "skips = operations.count('skip_connect')",
        "known = 'pgd' in labels",
    )
    text = "\n".join(lines)
    assert [line for line, _ in offences(ast.parse(text))] == [1, 2, 3, 4, 5]
