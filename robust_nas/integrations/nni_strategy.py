"""NNI's one-shot strategies as strategies of ours: their supernet and choices, our losses, loop and checkpoints.

A step of NNI's DARTS (Liu et al., 2019, first order), with the losses on images attacked just before each:

    alpha <- Adam(alpha, d/dalpha L(w, alpha; v', t))           v' = attack(w, alpha; v, t)
    w     <- SGD(w, d/dw L(w, alpha; x', y))                    x' = attack(w, alpha; x, y)

Both losses move the batch norms' running statistics, as in NNI. The supernet, its alphas and its softmax are NNI's,
with `gumbel-darts` a Gumbel softmax on NNI's schedule of temperatures. The two lines above are ours: NNI runs them
inside Lightning's trainer, which owns the epochs and cannot stop between two steps. A test holds them against the plain
loop. Nothing here imports NNI before a search begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robust_nas.integrations.samples import edge_label, from_sample, node_label
from robust_nas.lazy import torch
from robust_nas.search import AlphaStep, Batch, OneShotStrategy, SearchContext
from robust_nas.search.one_shot.batch import flatten
from robust_nas.search.one_shot.optimisers import AlphaSchedule
from robust_nas.search.one_shot.strategy import Draw
from robust_nas.spaces import CellArchitecture, CellSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_nas.search import OneShotSearch


class NNIAlphaOptimiser(AlphaSchedule):
    """NNI's Adam for the architecture parameters: betas 0.5, 0.999 and weight decay 1e-3 are its own and fixed."""

    def build(self, alphas: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these parameters."""
        return torch.optim.Adam(alphas, self.learning_rate, betas=(0.5, 0.999), weight_decay=1e-3)


class NNI(OneShotStrategy):
    """One of NNI's one-shot strategies with an adversarial loss for weights and alphas (`docs/how-to/nni.md`)."""

    distributed: ClassVar[bool] = False
    shares_weights: ClassVar[bool] = False  # its supernet is another
    derives_by_weights: ClassVar[bool] = False
    own_supernet: ClassVar[bool] = False
    variant: ClassVar[str | None] = "strategy"

    name: Literal["nni"] = "nni"
    strategy: Literal["darts", "gumbel-darts", "proxyless"] = "darts"  # NNI's strategy
    alphas: NNIAlphaOptimiser = NNIAlphaOptimiser()  # type: ignore[assignment] # the same names
    precision: Literal["float32"] = "float32"

    @property
    def label(self) -> str:
        """Return the name as the command line has it."""
        return f"{self.name}:{self.strategy}"

    def session(self, context: SearchContext) -> AbstractContextManager[None]:
        """Seed torch's global generators, which NNI draws from, inside; outside, they are as they were.

        Raises `ConfigError` where NNI is not installed.
        """
        from robust_nas.integrations import nni  # noqa: F401 - refused before anything is done

        return own_generators(context.images.pixels.device, context.seed)

    def build_supernet(
        self,
        space: CellSpace,
        *,
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
        execution: Literal["fused", "plain"] = "fused",
    ) -> nn.Module:
        """Return the supernet that NNI makes of the space, on the CPU; it has one execution of its own."""
        from robust_nas.integrations import nni

        size = self.size(space)
        model = nni.to_model_space(
            space,
            channels=size.channels,
            cells=size.cells,
            classes=classes,
            in_channels=len(mean),
            mean=mean,
            std=std,
            supernet=True,
            seed=seed,
        )
        return nni.mutated(model, self.strategy)

    def architecture_parameters(self, supernet: nn.Module) -> dict[str, nn.Parameter]:
        """Return the logits of every choice by its label."""
        from robust_nas.integrations import nni

        return nni.architecture_parameters(supernet)

    def folded(self, supernet: nn.Module) -> nn.Module | None:
        """Return None: a supernet of NNI's is attacked as it is."""
        return None

    def edge_logits(self, space: CellSpace, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits of every edge's operations, `[E, O]` per kind."""
        return {
            kind: torch.stack([alphas[edge_label(kind, *edge)] for edge in space.edges])
            for kind in space.layout.kinds
        }

    def source_weights(
        self, space: CellSpace, alphas: Mapping[str, Tensor]
    ) -> dict[str, list[list[float]]] | None:
        """Return the softmax over the sources of every node per kind."""
        return {
            kind: [alphas[node_label(kind, node)].softmax(0).tolist() for node in range(space.nodes)]
            for kind in space.layout.kinds
        }

    def derive(self, search: OneShotSearch, alphas: Mapping[str, Tensor], name: str) -> CellArchitecture:
        """Return the architecture of the strongest choices, as NNI exports it."""
        space = search.space
        sample: dict[str, Any] = {}
        for kind in space.layout.kinds:
            for node, source in space.edges:
                label = edge_label(kind, node, source)
                sample[label] = space.operations[int(alphas[label].argmax())]
            for node in range(space.nodes):
                label = node_label(kind, node)
                sample[label] = sorted(torch.argsort(-alphas[label]).tolist()[: space.kept(node)])
        return from_sample(space, sample, name)

    @property
    def reads_back(self) -> int:  # type: ignore[override] # of the values
        """Return how often a step waits for the device: with `proxyless` for both of its samples."""
        return 2 if self.strategy == "proxyless" else 0

    @property
    def attacks_weights_half(self) -> bool:
        """Return whether no loss of the weights does it."""
        return self.weights.loss is None

    def begin_epoch(self, search: OneShotSearch) -> None:
        """Set the temperature of the epoch, where the softmax has one."""
        from robust_nas.integrations import nni

        if self.strategy == "gumbel-darts":
            nni.set_temperature(search.supernet, search.epoch, self.epochs)

    def resample(self, search: OneShotSearch) -> None:
        """Draw the operations and sources of the next batch, where the supernet computes single ones."""
        from robust_nas.integrations import nni

        if self.reads_back:
            nni.resample(search.supernet)

    def step(self, search: OneShotSearch, draw: Draw) -> Mapping[str, Tensor]:
        """Move the alphas on their batch, then the weights on theirs, each attacked just before."""
        self.resample(search)
        (batch,) = draw("alphas")
        found = self.alpha_gradient(search, batch, batch)
        search.alpha_step(found.gradient)
        self.resample(search)
        loss, _ = search.weight_step(*draw("weights"))
        return {"loss_weights": loss, **found.measured}

    def warm_up_step(self, search: OneShotSearch, draw: Draw) -> Mapping[str, Tensor]:
        """Move the weights alone."""
        self.resample(search)
        return super().warm_up_step(search, draw)

    def alpha_gradient(self, search: OneShotSearch, alphas_batch: Batch, weights_batch: Batch) -> AlphaStep:
        """Return the gradient of the adversarial loss in training mode."""
        search.supernet.train()
        alphas = list(search.alphas.values())
        loss, gradient = search.loss_gradient(alphas_batch.adversarial, alphas_batch, alphas)
        return AlphaStep(flatten(gradient), {"loss_adversarial": loss})

    def state(self, search: OneShotSearch) -> dict[str, Any]:
        """Return the global generators, which NNI's softmax draws from."""
        device = next(search.supernet.parameters()).device
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return {"global_generator": torch.get_rng_state(), "cuda_generator": cuda}

    def restore(self, search: OneShotSearch, state: Mapping[str, Any]) -> None:
        """Put the global generators back."""
        torch.set_rng_state(state["global_generator"])
        device = next(search.supernet.parameters()).device
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_generator"], device)

    def note(self, record: Mapping[str, Any]) -> str:
        """Return both losses of the last record, for progress."""
        if record["loss_adversarial"] is None:  # the weights alone were trained
            return super().note(record)
        return f"loss {record['loss_weights']:.2f}, alphas: adversarial {record['loss_adversarial']:.2f}"


@contextmanager
def own_generators(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's global generators of this device inside; outside, they are as they were."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
