"""The package without NNI: nothing but its bridge imports it, and the bridge says what to install."""

import ast
import sys
from pathlib import Path

import pytest

import robust_nas
from robust_nas import integrations
from robust_nas.errors import ConfigError

PACKAGE = Path(robust_nas.__file__).parent
BRIDGE = PACKAGE / "integrations" / "nni.py"
PROPOSALS = BRIDGE.with_name("nni_proposals.py")  # imported after it
OPTIONAL = {"nni", "nni_node", "pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics"}


def imported(tree: ast.Module) -> set[str]:
    """The top-level packages that a module's text imports anywhere, `import_module("...")` included."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names |= {str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)}
    return {name.partition(".")[0] for name in names}


def test_no_module_but_the_bridge_imports_nni_or_lightning() -> None:
    found = {path for path in PACKAGE.rglob("*.py") if OPTIONAL & imported(ast.parse(path.read_text()))}
    assert found == {BRIDGE, PROPOSALS}


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge as it is before anything has imported it."""
    monkeypatch.delitem(sys.modules, "robust_nas.integrations.nni", raising=False)
    monkeypatch.delattr(integrations, "nni", raising=False)


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("missing", ["nni", "pytorch_lightning"])
def test_a_missing_package_is_answered_with_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "pytorch_lightning":
        pytest.importorskip("nni")
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"'?" + missing + r".*pip install 'robust-nas\[nni\]'"):
        from robust_nas.integrations import nni  # noqa: F401
