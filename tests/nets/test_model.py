"""The model folder: rebuilt bit for bit, and every damaged, foreign or malicious file refused with nothing run."""

import json
import os
import pickle
import shutil
import struct
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn

from robust_nas.defences import Blur, Defended, StoredDefence
from robust_nas.errors import CheckpointError, ConfigError
from robust_nas.nets import (
    ModelDescription,
    build_network,
    inference_state,
    load_model,
    read_model,
    save_model,
    weights,
)
from robust_nas.spaces import Size, load_space, sample

SHAPE = (2, 8, 8)
ARCHITECTURE = sample(load_space("dsara"), 0, size=Size(cells=3, channels=2))
DESCRIPTION = ModelDescription(
    input_shape=SHAPE, class_names=("a", "b", "c"), mean=(0.1, 1 / 3), std=(0.5, 8 / 255), made_by={"seed": 1}
)
NETWORK = build_network(
    ARCHITECTURE, input_shape=SHAPE, classes=3, mean=DESCRIPTION.mean, std=DESCRIPTION.std, seed=5
)
with torch.no_grad():  # statistics that are not the fresh ones
    NETWORK.train()(torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0)))
STATE = inference_state(NETWORK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", ARCHITECTURE, STATE, DESCRIPTION)
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_model(folder)
    return str(caught.value)


def test_a_model_folder_is_rebuilt_to_the_same_logits_bit_for_bit(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "architecture.yaml",
        "model.safetensors",
        "model.json",
    }
    before = torch.random.get_rng_state()
    model = read_model(folder)
    assert torch.equal(torch.random.get_rng_state(), before)
    x = torch.rand(4, *SHAPE)
    with torch.no_grad():
        assert torch.equal(model.network(x), NETWORK.eval()(x))
        assert torch.equal(load_model(str(folder))(x), NETWORK(x))
    assert (model.architecture, model.description) == (ARCHITECTURE, DESCRIPTION)
    assert not model.network.training


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    for device in ("cuda:99", "gpu"):
        with pytest.raises(ConfigError, match=f"device: got '{device}', which this torch cannot use .*: cpu"):
            load_model(folder, device)
    with pytest.raises(ConfigError, match="device: got 'meta', where a network has no values"):
        load_model(folder, "meta")


def test_the_auxiliary_head_does_not_travel(tmp_path: Path) -> None:
    network = build_network(ARCHITECTURE, input_shape=(2, 16, 16), classes=3, auxiliary=True)
    description = DESCRIPTION.model_copy(
        update={"input_shape": (2, 16, 16), "mean": (0.0, 0.0), "std": (1.0, 1.0)}
    )
    save_model(tmp_path, ARCHITECTURE, inference_state(network), description)
    x = torch.rand(2, 2, 16, 16)
    network.eval()
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(x), network(x))


class Shifted(Defended):
    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, Blur())
        self.register_buffer("bias", torch.zeros(3))


def test_a_module_called_defence_is_of_the_network(tmp_path: Path) -> None:
    network = nn.Sequential(OrderedDict(flat=nn.Flatten(), defence=nn.Linear(128, 3))).eval()
    description = DESCRIPTION.model_copy(update={"module": "net.py:build"})
    save_model(tmp_path / "plain", None, inference_state(network), description)
    fresh = nn.Sequential(OrderedDict(flat=nn.Flatten(), defence=nn.Linear(128, 3)))
    plain = read_model(tmp_path / "plain", module=fresh)
    x = torch.rand(2, *SHAPE)
    assert torch.equal(plain.network(x), network(x))
    blur = Blur(sigma=0.5)
    sealed = description.model_copy(update={"defence": StoredDefence.of(blur, {}, None, plain.digest)})
    save_model(tmp_path / "blurred", None, inference_state(blur.wrap(network)), sealed)
    blurred = load_model(tmp_path / "blurred", module=fresh)
    assert torch.equal(blurred(x), blur.wrap(network)(x))
    with pytest.raises(ConfigError, match=r"defence\.bias: is the name of a tensor of the network"):
        inference_state(Shifted(network))


@pytest.mark.parametrize("name", ["architecture.yaml", "model.safetensors", "model.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{name} is missing" in refusal(folder)


WEIGHTS = save(STATE, metadata={"format": "pt"})
HEADER = 8 + struct.unpack("<Q", WEIGHTS[:8])[0]


@pytest.fixture(scope="module")
def shared() -> Any:
    with tempfile.TemporaryDirectory() as name:
        save_model(Path(name), ARCHITECTURE, STATE, DESCRIPTION)
        yield Path(name)


@settings(max_examples=25)
@given(st.integers(0, len(WEIGHTS) - 1) | st.integers(0, HEADER))
def test_weights_truncated_anywhere_are_refused(shared: Path, length: int) -> None:
    (shared / "model.safetensors").write_bytes(WEIGHTS[:length])
    assert "model.safetensors" in refusal(shared)


@settings(max_examples=40)
@given(st.integers(0, 8 * HEADER - 1))
def test_a_bit_flipped_in_the_header_never_gives_other_errors_or_other_tensors(
    shared: Path, bit: int
) -> None:
    flipped = bytearray(WEIGHTS)
    flipped[bit // 8] ^= 1 << bit % 8
    (shared / "model.safetensors").write_bytes(flipped)
    try:
        state = read_model(shared).network.state_dict()
    except CheckpointError:
        return
    assert {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in STATE.items()}


def changed(folder: Path, **tensors: torch.Tensor | None) -> str:
    state = {name: tensor for name, tensor in STATE.items() if tensors.get(name, tensor) is not None}
    state |= {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(state, folder / "model.safetensors")
    return refusal(folder)


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    weight, bias = STATE["classifier.weight"], STATE["classifier.bias"]
    assert "payload is foreign" in changed(folder, payload=torch.zeros(3))
    assert "classifier.bias is missing" in changed(folder, **{"classifier.bias": None})
    assert "classifier.weight is F32 [16, 3], the architecture needs F32 [3, 16]" in changed(
        folder, **{"classifier.weight": weight.T.contiguous()}
    )
    assert "classifier.bias is F64 [3]" in changed(folder, **{"classifier.bias": bias.double()})
    assert "classifier.bias is I64 [3]" in changed(folder, **{"classifier.bias": bias.long()})
    for bad in (float("nan"), float("inf")):
        assert "classifier.bias holds NaN or infinite values" in changed(
            folder, **{"classifier.bias": torch.tensor([0.0, bad, 0.0])}
        )


def claim(folder: Path, header: object, body: bytes = b"") -> str:
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    return refusal(folder)


def test_a_header_that_claims_a_terabyte_is_refused_before_anything_is_allocated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "load_file", lambda path: pytest.fail("tensors were read"))
    entry = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    assert "does not fit" in claim(folder, {"classifier.weight": entry})
    # the architecture claims as much as the header does, and the file is short
    wide = ARCHITECTURE.resized(channels=1 << 18)
    (folder / "architecture.yaml").write_text(wide.to_yaml())
    with torch.device("meta"):
        huge = build_network(wide, input_shape=SHAPE, classes=3).state_dict()
    header = {
        name: {"dtype": weights.DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [0, 0]}
        for name, tensor in huge.items()
    }
    assert "is damaged or truncated" in claim(folder, header)


@pytest.mark.parametrize(
    "header",
    [[], 3, "x", {"a": 1}, {"a": {"shape": 3}}, {"a": {"dtype": "F32"}}, {"a": {"dtype": [], "shape": [[]]}}],
)
def test_a_header_of_another_form_is_refused(folder: Path, header: object) -> None:
    assert "model.safetensors" in claim(folder, header)


def test_a_header_length_beyond_reason_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    assert "claims" in refusal(folder)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 99_000) + b"[" * 99_000)
    assert "no safetensors file" in refusal(folder)


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("dump", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_under_the_name_of_the_weights_is_not_run(folder: Path, tmp_path: Path, dump: Any) -> None:
    mark = tmp_path / "ran"
    dump({"classifier.weight": Payload(mark)}, folder / "model.safetensors")
    assert "no safetensors file" in refusal(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "cannot be read"),
        ("[]", "model.json"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "input_shape: missing"),
        ('{"input_shape": [2, 8, 8], "class_names": ["a"], "mean": [0, 0], "std": [1, 1]}', "class_names"),
        ('{"input_shape": [2, 8, 8], "class_names": ["a", "b"], "mean": [0], "std": [1]}', "need 2 numbers"),
        (
            '{"input_shape": [2, 8, 8], "class_names": ["a", "b"], "mean": [0, 0], "std": [1, 0]}',
            "std.1: got 0",
        ),
        (
            '{"input_shape": [2, 8, 8], "class_names": ["a", "b"], "mean": [0, NaN], "std": [1, 1]}',
            "mean.1: got nan",
        ),
        (
            '{"input_shape": [2, 8, 8], "class_names": ["a", "b"], "mean": [0, 0], "std": [1, 1]}',
            "does not fit",
        ),
        (
            '{"input_shape": [2, 8, -8], "class_names": ["a", "b"], "mean": [0, 0], "std": [1, 1]}',
            "input_shape.2",
        ),
        ('{"input_shape": [2, 8, 8], "code": "x"}', "unknown key 'code'"),
    ],
)
def test_a_bad_description_is_refused(folder: Path, text: str, fragment: str) -> None:
    (folder / "model.json").write_text(text)
    assert fragment in refusal(folder)


@pytest.mark.parametrize(
    "text", ["", "a: [", "a: 1", "!!python/object/apply:os.system [echo]", "\0", "[" * 5000, "a: &x 1\nb: *x"]
)
def test_a_bad_architecture_is_refused(folder: Path, text: str) -> None:
    (folder / "architecture.yaml").write_text(text)
    assert "architecture.yaml" in refusal(folder)


def test_another_architecture_is_refused(folder: Path) -> None:
    (folder / "architecture.yaml").write_text(ARCHITECTURE.resized(channels=3).to_yaml())
    assert "does not fit the architecture" in refusal(folder)
    (folder / "architecture.yaml").write_text(ARCHITECTURE.resized(channels=1 << 19).to_yaml())
    assert "does not fit the architecture" in refusal(folder)


def test_a_save_that_fails_leaves_the_model_that_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = folder.with_name("copy")
    shutil.copytree(folder, copied)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="No space left on device"):
        save_model(folder, ARCHITECTURE.resized(channels=3), STATE, DESCRIPTION)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in copied.iterdir()
    }
