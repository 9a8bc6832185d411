"""Measure what a sampled search asks of its candidates: latency at the final size, and robustness after compression.

Latency is CPU time of one thread at batch 1, the median of rounds (`export/latency.py`); each network is measured once
and recorded, so that a resumed search repeats the record. Compression is that of the config's section `compression`, on
images of the search alone: those that the candidate was trained on, and those that were held out to score it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_nas.compression import CompressionContext, OriginalModel
from robust_nas.config import to_dict, tree_hash
from robust_nas.errors import ArchitectureError, CompressionError, ConfigError
from robust_nas.records import read_json
from robust_nas.run_folder import silent, write_json
from robust_nas.search.sampled.measured import COMPRESSED_ROBUST, LATENCY, LatencyOptions
from robust_nas.spaces import CellArchitecture, sample
from robust_nas.workflows.compress_measures import describe
from robust_nas.workflows.compress_steps import make_candidates
from robust_nas.workflows.config import CompressionConfig, RunConfig
from robust_nas.workflows.context import JobContext

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.data import Images

MEASUREMENTS = "latency"  # folder inside that of the search
SAMPLE = 8  # networks of the space that a compression is tried on before the search


@dataclass(frozen=True)
class CandidateLatency:
    """Measures candidates of a search by a runtime here, or looks them up in a table."""

    folder: Path
    options: LatencyOptions
    context: JobContext

    def __call__(self, architecture: CellArchitecture) -> float | None:
        """Return milliseconds; None where a runtime fails on the network, the clock did not move, or no row is there.

        The reason is in the file of the network, `latency/<hash>.json`.
        """
        key = {key: value for key, value in to_dict(architecture).items() if key != "name"}
        path = self.folder / f"{tree_hash(key)}.json"
        if not path.is_file():
            self.folder.mkdir(exist_ok=True)
            value, why = self._measured(architecture)
            write_json(path, {LATENCY: value, "reason": why})
        found: float | None = read_json(path, {LATENCY: (float, None)})[LATENCY]
        return found

    def _measured(self, architecture: CellArchitecture) -> tuple[float | None, str | None]:
        options = self.options
        if options.table is not None and options.device is not None:
            value, source = _of_table(options.table, options.device, architecture), options.table
        else:
            from robust_nas.export.latency import latencies

            network = untrained(architecture, self.context)
            found, missing = latencies(
                {"candidate": network}, self.context.dataset.shape, batches=(1,), runtimes=(options.runtime,)
            )
            if missing:
                return None, missing[0]
            value, source = found["candidate"][options.runtime]["1"]["median_ms"], options.runtime
        if math.isfinite(value) and value > 0:
            return value, None
        return None, f"{source}: gave {value} ms"


def _of_table(file: str, device: str, architecture: CellArchitecture) -> float:
    """Return a table's latency of an architecture's class, NaN where it has none."""
    from robust_nas.search.tables import device_column, load_table

    table = load_table(file)
    column, found = device_column(table, device), table.class_of(architecture)
    return table.value(found, column) if table.has(found, column) else math.nan


def untrained(architecture: CellArchitecture, context: JobContext) -> nn.Module:
    """Return the network of an architecture on the CPU in eval mode, with its first weights."""
    from robust_nas.nets import build_network

    mean, std = context.normalisation
    network: nn.Module = build_network(
        architecture,
        input_shape=context.dataset.shape,
        classes=context.dataset.classes,
        mean=mean,
        std=std,
        seed=context.config.seed,
    )
    return network.eval()


def compressed_robust(
    config: RunConfig,
    context: JobContext,
    architecture: CellArchitecture,
    state: dict[str, Tensor],
    images: tuple[Images, Images],
    folder: Path,
) -> float | None:
    """Return the robust accuracy of a trained candidate after compression to `search.compressed_macs` of its MACs.

    It is that of the most robust network, baselines left out, which the steps of `compression` make with no more MACs
    than that; None where they make none. `images` are those trained on and those that score, on the device.
    """
    from robust_nas.nets import ModelDescription, read_model, save_model
    from robust_nas.nets.cost import measured_cost
    from robust_nas.training.validation import validation_images

    assert config.compression is not None  # noqa: S101 - refused before the search
    dataset, (mean, std) = context.dataset, context.normalisation
    made_by = {"dataset": dataset.name, "dataset_checksum": dataset.checksum}
    description = ModelDescription(
        input_shape=dataset.shape, class_names=dataset.class_names, mean=mean, std=std, made_by=made_by
    )
    save_model(folder / "original", architecture, state, description)
    original = OriginalModel(read_model(folder / "original"), folder / "original")
    own = CompressionContext(
        original=original,
        config=CompressionConfig.of(config),
        recipe=config.training,
        augmentation=config.data.augment,
        images=images[0],
        validation=validation_images(images[1], config.training.validation_images, config.seed),
        device=context.device,
        seed=config.seed,
        checkpoint_seconds=config.checkpoint_seconds,
        root=folder,
        mode="resume",
        progress=silent,
    )
    most = _share(config) * measured_cost(original.model.network, dataset.shape).macs
    try:
        made = [one for _, one in make_candidates(own, config.compression.steps) if one.baseline_of is None]
    except CompressionError:  # nothing in it to compress, or not as far
        return None
    rows = [describe(own, one, own.read(one).network) for one in made]
    return max((row["validation"]["robust"] for row in rows if row["macs"] <= most), default=None)


def _share(config: RunConfig) -> float:
    share: float = config.search.compressed_macs  # type: ignore[attr-defined] # of a sampled strategy
    return share


def refuse_unmeasurable(config: RunConfig, context: JobContext) -> None:
    """Raise `ConfigError` before a search for columns of its goal that cannot be measured here."""
    measured = config.search.measured
    if LATENCY in measured:
        _refuse_latency(config.search.latency, config, context)  # type: ignore[attr-defined] # of a sampled strategy
    if COMPRESSED_ROBUST in measured:
        _refuse_compression(config, context)


def _refuse_latency(options: LatencyOptions, config: RunConfig, context: JobContext) -> None:
    if options.table is not None and options.device is not None:
        try:
            _of_table(options.table, options.device, sample(config.space.load(), 0))
        except ArchitectureError as error:
            raise ConfigError(f"search.latency.table: {error}") from None
    elif options.runtime == "onnxruntime":
        from robust_nas.export.latency import refuse_absent

        try:
            refuse_absent()
        except ConfigError as error:
            raise ConfigError(f"search.latency.runtime: got 'onnxruntime'; {error}") from None


def _refuse_compression(config: RunConfig, context: JobContext) -> None:
    """Raise `ConfigError` where the first step refuses every network of a sample of the space."""
    if config.compression is None:
        raise ConfigError(
            f"compression: got null; {COMPRESSED_ROBUST} of the search needs a section compression, such as "
            "compression.gdws.budgets=[0.5]"
        )
    space, reasons = config.space.load(), list[Any]()
    for seed in range(SAMPLE):
        network = untrained(sample(space, seed, size=config.search.size(space)), context)
        try:
            config.compression.steps[0].refuse(network, context.dataset.shape)
        except CompressionError as error:
            reasons.append(error)
        else:
            return
    raise ConfigError(
        f"compression: {COMPRESSED_ROBUST} of the search: {config.compression.steps[0].label} can compress none of "
        f"{SAMPLE} networks of {space.name}: {reasons[0]}"
    )
