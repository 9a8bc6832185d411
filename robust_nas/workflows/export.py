"""An export as a job: from a model folder to files that run elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from robust_nas.config import expand_path, suggestion
from robust_nas.errors import ConfigError, RunError, RunExistsError
from robust_nas.run_folder import Progress, silent, write_atomic
from robust_nas.workflows.config import EvaluationConfig
from robust_nas.workflows.deployed_rule import defence_of, random_passes
from robust_nas.workflows.places import model_in, of_files

if TYPE_CHECKING:
    import torch
    from torch import nn

    from robust_nas.data import Images
    from robust_nas.nets import Model
    from robust_nas.workflows.context import JobContext

Form = Literal["source", "onnx", "program", "hub"]
FORMS: tuple[Form, ...] = get_args(Form)
FILES: dict[Form, str] = {
    "source": "network.py",
    "onnx": "network.onnx",
    "program": "network.pt2",
    "hub": "hub/config.json",
}
GRAPHS: tuple[Form, ...] = ("onnx", "program")
HUB = "hub"  # folder of the form
RANDOM_IMAGES = 8  # that every form is held against the model with before it gets its name


def export_model(
    model_folder: Path,
    out: Path | None = None,
    *,
    forms: Sequence[str] = ("source",),
    module: nn.Module | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Writes the model in the given forms; returns the folder (default: `export/` in the run folder of the model).

    `source` is plain Python with torch alone (`network.py`, `weights.pt`), `onnx` is `network.onnx`, `program` is
    torch.export's `network.pt2`. Each is compared with the model on random images before it gets its name. `hub` is the
    folder `hub/` for a model hub, which `load_model` reads: the model's own files, a card with the verdict, and
    `config.json`. `module` is the user's own, as it was before it was compressed, where the folder holds no
    architecture.

    Raises `RunExistsError` for files that are there, `ConfigError` for a form that this model, or this installation,
    does not have, and `RunError` for one that computes other logits.
    """
    from robust_nas.export.source import export_source

    wanted = checked_forms(forms)
    model_folder = model_in(model_folder)
    folder = expand_path(out) if out else of_files("export", model_folder)
    model = refuse_export(model_folder, folder, wanted, module=module, overwrite=overwrite)
    made: dict[Form, bytes] = {}
    for number, form in enumerate(wanted):
        progress("export", number, len(wanted), form)
        if form in GRAPHS:
            made[form] = _bytes(model, form)
    if "source" in wanted:
        export_source(model, folder, overwrite=overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}") from None
    for form, data in made.items():
        write_atomic(folder / FILES[form], data)
    if "hub" in wanted:
        from robust_nas.export.hub import export_hub

        export_hub(model, folder / HUB)
    progress("export", len(wanted), len(wanted))
    return folder


def refuse_export(
    model_folder: Path,
    folder: Path,
    forms: Sequence[Form],
    *,
    module: nn.Module | None = None,
    overwrite: bool = False,
) -> Model:
    """Return the model; raise what `export_model` would for files that are there, before any work."""
    from robust_nas.export.source import refuse_source
    from robust_nas.nets import read_model

    model_folder = model_in(model_folder)
    for form in forms:
        if form != "source":
            _refuse_occupied(folder / FILES[form], overwrite)
    model = read_model(model_folder, module=module)
    _refuse_defence(model, forms)
    if set(forms) != {"hub"}:
        _refuse_random(model)
    if "source" in forms:
        refuse_source(model, folder, overwrite=overwrite)
    return model


def _refuse_defence(model: Model, forms: Sequence[Form]) -> None:
    """Raise `ConfigError` for a defence whose forward pass is no graph, and for the source of any."""
    defence = defence_of(model)
    if defence is None:
        return
    if defence.not_exported is not None and set(forms) != {"hub"}:
        raise ConfigError(
            f"{model.folder}: its defence {defence.label} cannot be exported: {defence.not_exported}; "
            "load_model(folder) gives the defended model, and --format hub hands it on"
        )
    if "source" in forms:
        raise ConfigError(
            f"{model.folder}: has the defence {defence.label}, which is no part of an architecture's plain source; "
            "--format onnx and --format program deliver the defended model"
        )


def _refuse_random(model: Model) -> None:
    """Raise `ConfigError` for a network that draws in every pass: a graph has one pass, and no generator to seed."""
    if random_passes(model) is not None:
        raise ConfigError(
            f"{model.folder}: cannot be exported: its answer is the mean of {random_passes(model)} random passes, and "
            "an exported graph is one pass without draws. load_model(folder) gives the network; an ensemble without "
            "draws, and the network of load_model(folder).posterior_mean(), are deterministic; --format hub hands it on"
        )


def checked_forms(forms: Sequence[str]) -> list[Form]:
    """The forms, each once. Raises `ConfigError` for one that there is not."""
    known: dict[str, Form] = {form: form for form in FORMS}
    for form in forms:
        if form not in known:
            raise ConfigError(
                f"--format: got {form!r}; allowed: {', '.join(FORMS)}, all{suggestion(form, FORMS)}"
            )
    if not forms:
        raise ConfigError(f"--format: got nothing; allowed: {', '.join(FORMS)}, all")
    return [known[form] for form in dict.fromkeys(forms)]


def _refuse_occupied(path: Path, overwrite: bool) -> None:
    from robust_nas.export.metadata import MARK

    if not path.exists():
        return
    if not path.is_file() or MARK.encode() not in path.read_bytes():
        raise RunExistsError(
            f"{path}: exists already and was not written by this export; choose another folder"
        )
    if not overwrite:
        raise RunExistsError(
            f"{path}: exists already; replace it with --overwrite, or choose another folder with --out"
        )


def _bytes(model: Model, form: Form) -> bytes:
    """The file of a form, held against the model on random images."""
    import torch

    from robust_nas.data import Images
    from robust_nas.export.check import RELATIVE, compare
    from robust_nas.export.metadata import as_texts, metadata
    from robust_nas.export.onnx import onnx_bytes
    from robust_nas.export.program import program_bytes

    shape = model.description.input_shape
    texts = as_texts(metadata(model))
    data = (onnx_bytes if form == "onnx" else program_bytes)(model.network, shape, metadata=texts)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (RANDOM_IMAGES, *shape), generator=generator).to(torch.uint8)
    images = Images(pixels, torch.zeros(RANDOM_IMAGES, dtype=torch.int64))
    found = compare(_loaded(form, data), _reference(model), images)
    if not found.passes:
        raise RunError(
            f"the {form} form computes other logits than the model: they disagree by {found.disagreement:.3g} of what "
            f"decides an answer (by {found.max_difference:.3g} at most), {RELATIVE:g} is allowed; nothing was written"
        )
    return data


def _reference(model: Model) -> nn.Module:
    return copy.deepcopy(model.network).cpu().eval()


def _loaded(form: Form, source: bytes | Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """An exported form as a call on images."""
    from robust_nas.export.onnx import OnnxModel
    from robust_nas.export.program import load_program

    if form == "onnx":
        return OnnxModel(source)
    if form == "program":
        return load_program(source)[0]
    file = str(source)
    names: dict[str, Any] = {"__name__": "exported_network", "__file__": file}
    try:
        text = Path(file).read_text(encoding="utf-8")
        exec(compile(text, file, "exec"), names)  # noqa: S102 - our own export, that the user asks to run
        return names["load"]()  # type: ignore[no-any-return]
    except Exception as error:  # whatever a damaged file, or weights that are not there, raise
        raise RunError(
            f"{file}: cannot be loaded ({type(error).__name__}: {error}); export it again"
        ) from error


def check_context(
    config: EvaluationConfig, model_folder: Path, *, module: nn.Module | None = None, other_data: bool = False
) -> JobContext:
    """Return the dataset of `check_export`, loaded before an export is written: a mistake leaves nothing.

    Raises `DataError` for other images than those that the model was trained on, unless `other_data` says that they are
    meant.
    """
    from robust_nas.nets import read_model
    from robust_nas.workflows.context import load_context
    from robust_nas.workflows.evaluate import refuse_misfit
    from robust_nas.workflows.training_images import refuse_other_images_than_training

    model_folder = model_in(model_folder)
    model, context = read_model(model_folder, module=module), load_context(config)
    refuse_misfit(model.description, context.dataset, model_folder)
    refuse_other_images_than_training(model, context.dataset, other_data)
    return context


def check_export(
    config: EvaluationConfig,
    model_folder: Path,
    folder: Path,
    forms: Sequence[str] = ("source",),
    *,
    images: int | None = 256,
    module: nn.Module | None = None,
    context: JobContext | None = None,
) -> dict[str, dict[str, Any]]:
    """Run exported forms and the model on the same test images.

    Return by form a `Comparison` as a dict, with `file` and `bytes`. `context` is that of `check_context`.

    Raises `RunError` for a form that is not there, or of which the files cannot be loaded, and what `check_context`
    raises without a context.
    """
    from robust_nas.export.check import compare
    from robust_nas.nets import load_model, read_model

    context = context or check_context(config, model_folder, module=module)
    model = read_model(model_in(model_folder), module=module)
    some: Images = context.dataset.test
    if images is not None and images < len(some):
        some = some.draw(images, config.seed)
    found: dict[str, dict[str, Any]] = {}
    for form in checked_forms(forms):
        path = folder / FILES[form]
        if not path.is_file():
            raise RunError(f"{path}: is not there; export it first")
        loaded = load_model(path.parent, module=module) if form == "hub" else _loaded(form, path)
        tree = compare(loaded, _reference(model), some).to_dict()
        weights = {"source": folder / "weights.pt", "hub": folder / HUB / "model.safetensors"}.get(form)
        size = path.stat().st_size + (weights.stat().st_size if weights else 0)
        found[form] = {"file": FILES[form], "bytes": size, **tree}
    return found
