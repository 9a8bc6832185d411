"""Run one attack on a model's images and save what it made: `set.npz`, `attack.json`, and a page of examples.

The images are those of an evaluation with the same seed: the first ones of its order, so that a set serves an
evaluation of as many images or fewer. Every image is attacked, also one that the model gets wrong as it is.

    attack.json   attack (its options), label, threat_model, model, victim, data, images, clean and robust (counts and
                  shares with Wilson's interval), success (of the images that were right), distances of the successes in
                  each norm (median and largest, float64), passes of one image, queries of an attack that counts them
                  (mean and most of an image), seconds, flags, seed, versions

The folder gets its name when everything is in it. N images, B of them in a batch.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from robust_nas import figures, user_code
from robust_nas._version import __version__
from robust_nas.attacks import Attack, ThreatModel, attack_field, inherit
from robust_nas.config import Options, check, existing_file, expand_path, read_yaml, to_dict
from robust_nas.config_paths import seen_from_file
from robust_nas.environment import environment
from robust_nas.errors import AttackError, ConfigError, RunExistsError
from robust_nas.run_folder import ENVIRONMENT, Progress, silent, write_json
from robust_nas.workflows.config import EvaluationConfig, model_config
from robust_nas.workflows.context import JobContext, load_context
from robust_nas.workflows.deployed_rule import with_own_rule
from robust_nas.workflows.places import Written, model_in, of_files
from robust_nas.workflows.report.at_end import reporting
from robust_nas.workflows.report.part import ATTACK_SET
from robust_nas.workflows.training_images import names_data, refuse_other_images_than_training

if TYPE_CHECKING:
    from torch import Tensor

    from robust_nas.attacks.engine import AttackResult
    from robust_nas.data import Images
    from robust_nas.evaluation.accuracy import Judged
    from robust_nas.nets import Model

Part = Literal["test", "validation"]
SHOWN = 15  # examples of the page
SET, RECORD = "set.npz", ATTACK_SET


class _Chosen(Options):
    """One attack; norm and eps come from the threat model where it does not say."""

    attack: Annotated[Attack, attack_field()]


def run_attack(
    attack: Attack | str | Path,
    model: Path | str,
    out: Path | str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    images: int | None = None,
    part: Part = "test",
    progress: Progress = silent,
    allow_code: Sequence[Path | str] = (),
    other_data: bool = False,
) -> Written:
    """Attack a model's images, write the folder `out`, and return the content of its `attack.json`, and its `folder`.

    Args:
        attack: a value, a name of the registry, or a YAML file with a `name` and options.
        model: a model folder, or a run folder with one in `model/`; data, seed, device, threat model and inference rule
            are those of its recipe.
        out: a folder that does not exist yet, or is empty; None: `attack-<name>` in the run folder of the model, with
            a number where that is there.
        options: of the attack, more than its file has, such as `{"steps": 50}`.
        overrides: of the recipe, such as `data.path=/data/cifar10` or `seed=1`.
        images: the largest number of images; None: all.
        part: `test`, or the `validation` split of the training images.
        progress: called as `progress(job, done, total)`.
        allow_code: Python files that the folder names and that are trusted.
        other_data: images of another checksum than those of the training are meant.

    Raises:
        ConfigError: an option is not acceptable, or the model does not take these images.
        RunExistsError: there is something in `out`.
        AttackError: the attack is not defined for the model or the images.
    """
    from robust_nas.nets import read_model

    if part not in get_args(Part):
        raise ConfigError(f"part: got {str(part)[:200]!r}; allowed: {', '.join(get_args(Part))}")
    if images is not None and images < 1:
        raise ConfigError(f"images: got {images}; a number from 1 is needed, or None for all")
    place = model_in(model)
    with user_code.allow_code(allow_code):
        if out is not None:
            refuse_occupied(expand_path(out))
        config = model_config(place, list(overrides))
        chosen = attack_of(attack, options or {}, config.evaluation.threat_model)
        found = read_model(place)
        folder = expand_path(out) if out else of_files("attack run", place, chosen.name, again=False)
        config = with_own_rule(config, found.network, place)
        if config.evaluation.deployed.samples is not None:  # a random model: as in an evaluation
            chosen = chosen.for_random_model(config.evaluation.deployed.eot)
        context = load_context(config)
        refuse_misfit_of(chosen, found, config, context, other_data or names_data(overrides))
        with reporting(folder):
            return _run(chosen, found, config, context, folder, images, part, progress)


def attack_of(attack: Attack | str | Path, options: Mapping[str, Any], threat_model: ThreatModel) -> Attack:
    """Return the attack of a name or of a YAML file, with more options. Raises `ConfigError`."""
    if isinstance(attack, Attack):
        if options:
            raise ConfigError("options go with the name of an attack; a value has its own")
        return attack
    file = existing_file(attack) if str(attack).endswith((".yaml", ".yml")) else None
    if file is None and str(attack).endswith((".yaml", ".yml")):
        raise ConfigError(f"{attack}: there is no such file")
    # Paths are known by the section that they are in.
    tree = seen_from_file({"attack": read_yaml(file)}, file)["attack"] if file else {"name": str(attack)}
    with inherit(threat_model):
        return check(_Chosen, {"attack": {**tree, **options}}, str(file or "attack run")).attack


def refuse_occupied(folder: Path) -> None:
    """Raise `RunExistsError` for a place that holds something, or that no folder can be made in."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise RunExistsError(
            f"{folder}: exists already and is not overwritten; choose another folder with --out"
        )
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise RunExistsError(f"{folder}: {above} is a file, so that no folder can be made in it")


def refuse_misfit_of(
    attack: Attack, model: Model, config: EvaluationConfig, context: JobContext, other_data: bool
) -> None:
    """Raise for images that the model does not take, or that the attack is not defined for."""
    from robust_nas.workflows.evaluate import refuse_misfit

    dataset = context.dataset
    refuse_misfit(model.description, dataset, model.folder or Path(model.name))
    refuse_other_images_than_training(model, dataset, other_data)
    attack.refuse_undefined(dataset.classes, dataset.shape, config.evaluation.deployed.abstains)


def _run(
    attack: Attack,
    model: Model,
    config: EvaluationConfig,
    context: JobContext,
    folder: Path,
    limit: int | None,
    part: Part,
    progress: Progress,
) -> Written:
    import torch

    from robust_nas.attacks.adversarial_set import AdversarialSet
    from robust_nas.data import random_indices
    from robust_nas.evaluation.accuracy import Judged, batch_of
    from robust_nas.evaluation.start import with_rule

    source: Images = context.dataset.test if part == "test" else context.validation
    order = random_indices(len(source), limit, config.seed)
    chosen = source.subset(order)
    attack.refuse_images(chosen.pixels, chosen.labels)
    predictor, _ = with_rule(model.network.to(context.device).eval(), config.evaluation)
    attack.refuse_model(predictor.module)
    began, parts, answers = time.perf_counter(), [], []
    batches = torch.split(torch.arange(len(order)), config.evaluation.batch_size)
    for number, rows in enumerate(batches):
        progress(f"attack: {attack.label}", number, len(batches))
        x, y = (values.to(context.device) for values in batch_of(chosen, rows))
        result, before, after = _attacked(attack, predictor, x, y, config, number)
        parts.append((x.cpu(), result))
        answers.append((before, after))
    seconds = time.perf_counter() - began
    progress(f"attack: {attack.label}", len(batches), len(batches))
    clean, adversarial = (
        torch.cat(each) for each in zip(*((x, r.images.cpu()) for x, r in parts), strict=True)
    )
    before, after = (Judged.joined(list(each)) for each in zip(*answers, strict=True))
    labels = chosen.labels.cpu()
    record = {
        "attack": to_dict(attack),
        "label": attack.label,
        "threat_model": {"norm": attack.norm, "eps": attack.eps},
        "model": model.name,
        "victim": model.digest,
        "data": {
            "name": context.dataset.name,
            "part": part,
            "checksum": context.dataset.checksum,
            "class_names": list(context.dataset.class_names),
        },
        "seed": config.seed,
        "versions": {"robust_nas": __version__, "torch": torch.__version__},
        **measured(clean, adversarial, before, after),
        "passes": {
            "forward": sum(result.forwards for _, result in parts) / len(labels),
            "backward": sum(result.backwards for _, result in parts) / len(labels),
        },
        "queries": _queries([result for _, result in parts]),
        "seconds": seconds,
        "flags": list(dict.fromkeys(flag for _, result in parts for flag in result.flags)),
    }
    keys = ("attack", "label", "threat_model", "victim", "model", "data", "seed", "versions")
    found = AdversarialSet(
        images=adversarial.float().numpy(),
        clean=clean.float().numpy(),
        labels=labels.numpy(),
        meta={key: record[key] for key in keys},
    )
    about = environment(
        config,
        device=str(context.device),
        threads=torch.get_num_threads(),
        dataset=context.dataset.name,
        dataset_checksum=context.dataset.checksum,
        images={part: len(labels)},
    )
    _write(folder, found, record, about, _examples(found, before, after, attack))
    return Written(record, folder)


def _attacked(
    attack: Attack, predictor: Any, x: Tensor, y: Tensor, config: EvaluationConfig, number: int
) -> tuple[AttackResult, Judged, Judged]:
    """Return what an attack made of a batch, and the answers before and after."""
    from robust_nas.attacks.checks import check_perturbation
    from robust_nas.attacks.engine import seeded_globally
    from robust_nas.evaluation.accuracy import judge
    from robust_nas.evaluation.inputs import model_errors
    from robust_nas.evaluation.seeds import generator_of, seed_of

    name = f"attack run {number}"
    draws = config.evaluation.deployed.draws
    with model_errors(f"{attack.label} fails on images", x):
        before = judge(predictor, x, y, draws=draws, seed=seed_of(config.seed, "judge clean", name))
        with seeded_globally(seed_of(config.seed, name), x.device):
            result = attack.run(predictor, x, y, generator_of(x.device, config.seed, name))
        if result.images.shape != x.shape:
            raise AttackError(f"{attack.label} made images of shape {tuple(result.images.shape)}")
        limit = attack.radius if attack.bounded else float("inf")
        check_perturbation(result.images, x, attack.norm, limit, attack.label)
        after = judge(predictor, result.images, y, draws=draws, seed=seed_of(config.seed, "judge", name))
    return result, before, after


def measured(clean: Tensor, adversarial: Tensor, before: Judged, after: Judged) -> dict[str, Any]:
    """Return accuracies before and after, success, and the distances of the images that were turned wrong."""
    from robust_nas.attacks.norms import ORDER, length

    right, both = before.right, before.right & after.right
    broken = right & ~after.right
    delta = (adversarial.double() - clean.double())[broken]
    distances: dict[str, dict[str, float] | None] = {}
    for norm in ORDER:
        size = length(delta, norm)
        distances[norm] = (
            {"median": float(size.median()), "largest": float(size.max())} if len(size) else None
        )
    return {
        "images": len(right),
        "clean": share(int(right.sum()), len(right)),
        "robust": share(int(both.sum()), len(right)),
        "success": share(int(broken.sum()), int(right.sum())) if right.any() else None,
        "distances": distances,
    }


def _queries(results: Sequence[AttackResult]) -> dict[str, float] | None:
    """Return what an attack by answers alone asked for one image; None for others."""
    counts = [count for result in results if result.queries is not None for count in result.queries.tolist()]
    return {"mean": sum(counts) / len(counts), "most": max(counts)} if counts else None


def share(count: int, of: int) -> dict[str, float]:
    """Return a count as a share, with Wilson's interval of 95 %."""
    from robust_nas.statistics.proportions import wilson

    low, high = wilson(count, of)
    return {"count": count, "of": of, "share": count / of, "low": low, "high": high}


def _examples(found: Any, before: Judged, after: Judged, attack: Attack) -> list[dict[str, Any]]:
    """Return the first images as `plot_adversarial_grid` takes them."""
    import torch

    from robust_nas.attacks.norms import length

    shown = []
    for row in range(min(SHOWN, len(found))):
        clean, adversarial = found.clean[row], found.images[row]
        classes = len(found.meta["data"]["class_names"])
        guesses = []
        for judged in (before, after):
            p = judged.logits[row].softmax(0).nan_to_num(0.0)
            guess = int(p.argmax())
            guesses.append((guess if guess < classes else -1, float(p.max())))
        size = length(torch.from_numpy(adversarial - clean).unsqueeze(0), attack.norm)
        shown.append(
            {
                "clean": clean,
                "adversarial": adversarial,
                "label": int(found.labels[row]),
                "clean_prediction": guesses[0][0],
                "adversarial_prediction": guesses[1][0],
                "confidence_clean": guesses[0][1],
                "confidence_adversarial": guesses[1][1],
                "attack": attack.label,
                "broken": not bool(after.right[row]),
                "perturbation": float(size),
            }
        )
    return shown


def _write(
    folder: Path,
    found: Any,
    record: Mapping[str, Any],
    about: Mapping[str, Any],
    examples: list[dict[str, Any]],
) -> None:
    """Write the folder under another name, and give it its own at the end."""
    from robust_nas.attacks.adversarial_set import write_set

    refuse_occupied(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        made.chmod(0o755)
        write_set(made / SET, found)
        write_json(made / RECORD, dict(record))
        write_json(made / ENVIRONMENT, dict(about))
        meta = found.meta
        eps = "no bound" if meta["threat_model"]["eps"] is None else f"eps {meta['threat_model']['eps']:.4g}"
        caption = f"{meta['model']} on {meta['data']['name']} ({meta['data']['part']}), {meta['label']}, "
        caption += f"{meta['threat_model']['norm']} {eps}, seed {meta['seed']}; the first images"
        with figures.optional("examples"):
            names = meta["data"]["class_names"]
            figures.plot_adversarial_grid(examples, made / "examples", class_names=names, caption=caption)
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
