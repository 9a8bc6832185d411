"""What the steps of a compression share, and the networks that come out of it, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas.runs import Mode, Progress, Run
from robust_nas.workflows.material import Material, training_split

if TYPE_CHECKING:
    import torch
    from torch import nn

    from robust_nas.compression.options import Compression
    from robust_nas.data import Images
    from robust_nas.nets import Model
    from robust_nas.workflows.config import CompressionConfig

ORIGINAL = "original"


@dataclass(frozen=True)
class Source:
    """The model that is compressed: from a folder, or the user's own module with where it came from."""

    model: Model
    folder: Path | None  # of the model; None: a module
    spec: str = ""  # path.py:function
    weights: Path | None = None

    @property
    def module(self) -> nn.Module | None:
        """What the compressed forms of a user's own module are rebuilt from."""
        return self.model.network if self.folder is None else None


@dataclass(frozen=True)
class Candidate:
    """A network that came out: its model folder, what made it, and whether it stands there for comparison."""

    label: str
    method: str  # cstar, truncate, uniform, gdws, cstar+gdws
    folder: Path
    made_from: str = ORIGINAL  # label
    baseline_of: str | None = None  # label


@dataclass
class Work:
    """One compression: the run, the config, the model, the images, and whether steps that are done are taken over."""

    run: Run
    config: CompressionConfig
    source: Source
    material: Material
    mode: Mode
    progress: Progress
    images: Images = field(init=False)  # the training split, on the device
    validation: Images = field(init=False)

    def __post_init__(self) -> None:
        images, validation = training_split(self.config, self.material.dataset)
        limit = self.config.training.validation_images
        if limit is not None and limit < len(validation):
            validation = validation.subset(_drawn(len(validation), limit, self.config.seed))
        self.images, self.validation = images.to(self.material.device), validation.to(self.material.device)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run.folder

    @property
    def inner_mode(self) -> Mode:
        """The mode of the runs inside: what is there is continued, or there is nothing."""
        return "resume" if self.mode == "resume" else "new"

    def read(self, candidate: Candidate) -> Model:
        """A candidate's model, on the CPU."""
        from robust_nas.nets import read_model

        return read_model(candidate.folder, module=self.source.module)


def _drawn(count: int, limit: int, seed: int) -> torch.Tensor:
    """The validation images that the training loop draws with this seed."""
    import torch

    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit]


def refuse_out_of_reach(model: Model, options: Compression) -> None:
    """Raises `CompressionError` for a budget that this model cannot meet, before anything is written or trained."""
    from robust_nas.compression.cstar import limits
    from robust_nas.compression.gdws_network import refuse_shares
    from robust_nas.compression.layers import survey
    from robust_nas.compression.ranks import refuse_ratio

    network, shape = model.network, model.description.input_shape
    if options.cstar is not None:
        layers = survey(network, shape)
        for ratio in options.cstar.ratios:
            refuse_ratio(layers, ratio, limits(options.cstar))
    if options.gdws is not None and (options.cstar is None or options.cstar.skip_ends):
        gdws = options.gdws
        # Behind CSTAR shares are of what it made; but where nothing can be taken now, nothing can then.
        shares = () if options.cstar is not None else gdws.budgets or ()
        refuse_shares(network, shape, shares, skip_first=gdws.skip_first, min_kernels=gdws.min_kernels)


def candidates(work: Work) -> Iterator[Candidate]:
    """Makes the networks: CSTAR's with its baselines, GDWS's of the original or of what CSTAR made.

    What an earlier call finished is taken over. Raises `CompressionError` for a budget out of reach.
    """
    options = work.config.compression
    bases: list[Candidate | None] = [None]
    if options.cstar is not None:
        bases = []
        for ratio in options.cstar.ratios:
            found = list(_cstar(work, ratio))
            bases.append(found[0])
            yield from found
    if options.gdws is not None:
        for base in bases:
            yield from _gdws(work, base)


def _cstar(work: Work, ratio: float) -> Iterator[Candidate]:
    """CSTAR's network at a ratio, then its baselines."""
    from robust_nas.workflows.compress_cstar import run_baseline, run_cstar

    options: Any = work.config.compression.cstar
    label = f"cstar-{ratio:g}"
    yield Candidate(label, "cstar", run_cstar(work, options, ratio, work.folder / label))
    for kind in options.baselines:
        name = f"{kind}-{ratio:g}"
        made = run_baseline(work, options, ratio, work.folder / name, kind=kind, cstar=work.folder / label)
        yield Candidate(name, kind, made, baseline_of=label)


def _gdws(work: Work, base: Candidate | None) -> Iterator[Candidate]:
    """GDWS at every budget, on the original (None) or on what CSTAR made."""
    from robust_nas.workflows.compress_cstar import Tuning, finetune
    from robust_nas.workflows.compress_gdws import run_gdws

    options: Any = work.config.compression.gdws
    model = work.source.model if base is None else work.read(base)
    folder = work.folder / ("gdws" if base is None else f"{base.label}-gdws")
    method, prefix = ("gdws", "") if base is None else ("cstar+gdws", f"{base.label}+")
    origin = ORIGINAL if base is None else base.label
    for made in run_gdws(work, options, model, folder):
        candidate = Candidate(f"{prefix}{made.name}", method, made, made_from=origin)
        yield candidate
        if options.finetune_epochs:
            own = work.read(candidate)
            path = finetune(
                work,
                own,
                own.network.to(work.material.device),
                (),
                Tuning(options.finetune_epochs, options.finetune_learning_rate, options.loss),
                folder / f"{made.name}-tuned",
                {"tuned": {"epochs": options.finetune_epochs}},
            )
            yield Candidate(f"{candidate.label}-tuned", method, path, made_from=candidate.label)
