"""Data parallelism by torchrun, with collectives that are called where they are needed.

    torchrun --nproc-per-node N -m robust_nas search|train ...

Every rank holds the whole state and takes its rows of one global batch. A rank's loss is the mean over its rows times
their share of the batch, so that sums over the ranks, of losses and of gradients, are those of the mean over the batch:

    L = sum_r (b_r / B) L_r,        dL/dw = sum_r d[(b_r / B) L_r]/dw

Rank 0 alone writes. GPUs talk by nccl, everything else (numbers of the host, CPU tensors) by gloo. Torch is imported
where a job of several ranks begins, not before.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from robust_nas.errors import ConfigError, DistributionError, RobustNASError

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")

TIMEOUT = timedelta(minutes=30)  # of a collective: rank 0 may meanwhile draw figures, or write to a slow disk
PATIENCE = 3.0  # seconds in which a rank that is alive says so; torchrun, asked to end all, kills after 30
SPEAKING = 1.0  # seconds in which an error is printed
LOST = (
    "gloo",
    "NCCL",
    "Connection",
    "connection",
    "Timed out",
    "TCPStore",
)  # in what torch says of a lost rank


def launched() -> int:
    """The number of ranks that torchrun started; 1 without it."""
    return _number("WORLD_SIZE", 1)


def is_first() -> bool:
    """Whether this process is rank 0: the one that writes and prints."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"


def local_rank() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return _number("LOCAL_RANK", 0)


def _number(variable: str, otherwise: int) -> int:
    """A variable that torchrun sets. Raises `ConfigError` for one that is no number."""
    value = os.environ.get(variable, str(otherwise))
    if not value.isdecimal():
        raise ConfigError(f"{variable}: got {value!r} in the environment; torchrun sets it to a number")
    return int(value)


def refuse_several(verb: str) -> None:
    """Raises `ConfigError` when torchrun started several processes of a verb that is one."""
    if launched() > 1:
        raise ConfigError(
            f"{verb}: started by torchrun with {launched()} processes, but it is a job of one; "
            "start it without torchrun (search and train are what torchrun may start)"
        )


@dataclass(frozen=True)
class Ranks:
    """The processes of a job: how many, and which one this is."""

    rank: int = 0
    count: int = 1
    store: Any = None  # where a rank leaves a note for the others, also when the collectives have failed

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def rows(self, whole: int) -> slice:
        """This rank's rows of a batch of `whole` images: equal parts, up to one image."""
        return slice(whole * self.rank // self.count, whole * (self.rank + 1) // self.count)

    def share(self, whole: int) -> float:
        """This rank's share of a batch of `whole` images, 0..1."""
        rows = self.rows(whole)
        return float(rows.stop - rows.start) / whole

    def refuse_small(self, whole: int, key: str) -> None:
        """Raises `ConfigError` when a batch of `whole` images leaves a rank fewer than two, which batch norm needs."""
        if whole < 2 * self.count:
            ranks = f" for {self.count} ranks" if self.count > 1 else ""
            raise ConfigError(
                f"{key}: the batch has {whole} image{'s' * (whole != 1)}{ranks}; at least {2 * self.count} are needed "
                "by batch norm: a larger batch, or more training images (data.limit, data.validation)"
            )

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum over the ranks of each tensor, by one message; on one rank the tensors themselves."""
        if self.count == 1:
            return list(tensors)
        import torch

        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [  # in the memory format of each
            torch.empty_like(tensor).copy_(piece.view(tensor.shape))
            for tensor, piece in zip(tensors, pieces, strict=True)
        ]

    def all_reduce_mean(self, tensors: Sequence[Tensor], share: float) -> None:
        """Replaces tensors that each rank moved by its own rows by their mean, weighted by the ranks' shares."""
        if self.count > 1 and tensors:
            for tensor, mean in zip(
                tensors, self.all_reduce_sum([share * tensor for tensor in tensors]), strict=True
            ):
                tensor.copy_(mean)

    def first_decides(self, answer: bool) -> bool:
        """Rank 0's answer, on every rank. A message between the hosts: no GPU is waited for."""
        if self.count == 1:
            return answer
        import torch

        decision = torch.tensor(int(answer))
        torch.distributed.broadcast(decision, 0)
        return bool(decision)

    def run_on_all(self, compute: Callable[[], Value]) -> Value:
        """What rank 0 computes, on every rank. Raises on every rank the `RobustNASError` that it met."""
        if self.count == 1:
            return compute()
        import torch

        box: list[Any] = [None]
        if self.first:
            try:
                box[0] = True, compute()
            except RobustNASError as error:
                box[0] = False, error
        torch.distributed.broadcast_object_list(box, 0, device=torch.device("cpu"))
        sound, value = box[0]
        if not sound:
            raise value
        return value  # type: ignore[no-any-return]

    def refuse_difference(self, state: Mapping[str, Tensor], where: str) -> None:
        """Raises `DistributionError` on every rank unless all hold the same tensors, compared by weighted sums."""
        if self.count == 1:
            return
        import torch

        def weighted(tensor: Tensor) -> Tensor:
            flat = tensor.double().reshape(-1)  # weighted by place: a permutation is another tensor
            return flat @ torch.arange(1, len(flat) + 1, dtype=flat.dtype, device=flat.device)

        own = torch.stack([weighted(tensor) for tensor in state.values()]).cpu()
        theirs = own.clone()
        torch.distributed.broadcast(theirs, 0)
        differs = (own != theirs).int()
        torch.distributed.all_reduce(differs, torch.distributed.ReduceOp.MAX)
        if differs.any():
            name = list(state)[int(differs.argmax())]
            raise DistributionError(
                f"{where}: the ranks hold different {name}; they must compute the same bits, so their machines and "
                "versions must be alike. The last good checkpoint stays"
            )

    def claims_error_report(self) -> bool:
        """Whether this rank is the first to meet an error: it prints it, and the others end in silence."""
        with contextlib.suppress(RuntimeError):  # the process that kept the notes is gone: then say it twice
            return bool(self.store.compare_set("speaker", "", str(self.rank)) == str(self.rank).encode())
        return True

    def dead_ranks(self) -> list[int]:
        """The ranks whose heart does not beat for `PATIENCE`, in ascending order."""

        def beats() -> list[int]:
            return [self.store.add(f"beats-{rank}", 0) for rank in range(self.count)]

        with contextlib.suppress(RuntimeError):
            before = beats()
            time.sleep(PATIENCE)
            return [rank for rank, pair in enumerate(zip(before, beats(), strict=True)) if pair[0] == pair[1]]
        return [0]  # the notes are kept by its process, or by torchrun on its machine

    def heartbeat(self, stopped: threading.Event) -> None:
        """Tells the others several times in `PATIENCE` that this rank is alive, until it is stopped."""
        with contextlib.suppress(RuntimeError):
            while not stopped.wait(PATIENCE / 6):
                self.store.add(f"beats-{self.rank}", 1)


ALONE = Ranks()


class _EndedError(BaseException):
    """SIGTERM, by which torchrun ends the ranks that are left; no `except Exception` stops it."""


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of this job. Without torchrun there is one; a second use in a process gives the same ranks.

    An error that one rank met ends all, and is marked as spoken on all ranks but one. Raises `DistributionError` when a
    rank is lost.
    """
    if launched() == 1:
        yield ALONE
        return
    ranks = _join()
    try:
        with handle_sigterm(_raise_ended):
            yield ranks
    except RobustNASError as error:
        error.spoken = not ranks.claims_error_report()
        time.sleep(SPEAKING / 2)  # the others may meet it too, and ask who speaks; rank 0 may keep the notes
        raise
    except (RuntimeError, _EndedError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in LOST):
            raise
        with handle_sigterm(signal.SIG_IGN):
            gone = ranks.dead_ranks()
        which = f"no life in rank {', '.join(map(str, gone))}" if gone else "the job was ended from outside"
        broken = DistributionError(
            f"rank {ranks.rank} of {ranks.count}: {which}; torchrun's report says more. "
            "The last good checkpoint stays, continue with the same command and --resume"
        )
        broken.spoken = not ranks.claims_error_report()
        raise broken from error


@functools.cache
def _join() -> Ranks:
    """Meets the other ranks where torchrun's variables say."""
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    cuda = torch.cuda.is_available() and distributed.is_nccl_available()
    if cuda and local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(local_rank())
    try:
        store, rank, count = next(rendezvous("env://", timeout=TIMEOUT))
        store.set_timeout(TIMEOUT)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=count,
            timeout=TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        raise DistributionError(
            f"the {launched()} ranks did not meet: {error}; torchrun starts them"
        ) from None
    ranks = Ranks(rank, count, PrefixStore("notes", store))
    stopped = threading.Event()
    heart = threading.Thread(target=ranks.heartbeat, args=(stopped,), daemon=True)
    heart.start()

    def leave() -> None:
        stopped.set()
        heart.join()
        distributed.destroy_process_group()

    atexit.register(leave)
    return ranks


def _raise_ended(*_: object) -> None:
    raise _EndedError


@contextlib.contextmanager
def handle_sigterm(handler: Any) -> Iterator[None]:
    """The handler of SIGTERM inside; a thread that is not the main one may not set it, and does not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def may_print(error: RobustNASError) -> bool:
    """Whether this process prints the error: where several ranks end by one, the first to meet it, or rank 0.

    The others give it the time to do so before they end, because torchrun ends all with the first.
    """
    if (
        error.spoken is None
    ):  # met before the ranks did: likely by all of them, such as a mistake in the config
        error.spoken = False
        if not is_first():
            time.sleep(PATIENCE)
    elif error.spoken:
        time.sleep(SPEAKING)
    return not error.spoken
