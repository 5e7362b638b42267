"""Talking to the other ranks: every collective call, and what the others learn where one rank fails."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LOCAL = "local"  # in the place of a process group: this rank alone, where None stands for all ranks


class RankError(RuntimeError):
    """Some ranks failed inside of a section that all run together; the message, the same on all, names them."""


def is_distributed(group: Any = None) -> bool:
    """Return whether there is more than one rank to reduce over."""
    return group != LOCAL and dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1


def rank_and_world(group: Any = None) -> tuple[int, int]:
    """Return which rank of ``group`` this one is, and how many there are: (0, 1) by itself."""
    return (dist.get_rank(group), dist.get_world_size(group)) if is_distributed(group) else (0, 1)


def wire_device(group: Any = None) -> torch.device:
    """Return the device on which ``group`` communicates: NCCL's is the current GPU, everybody else's the CPU."""
    if dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def gather(own: Any, group: Any = None) -> list[Any]:
    """Return what every rank of ``group`` gave as ``own``, in order of rank; [own] where there is one rank."""
    if not is_distributed(group):
        return [own]
    # What cannot be pickled is found out before the others are there, not among them.
    packed = pickle.dumps(own)
    everyone: list[Any] = [None] * dist.get_world_size(group)
    with _meeting(group):
        dist.all_gather_object(everyone, packed, group=group)
    return [pickle.loads(theirs) for theirs in everyone]


def all_reduce(tensor: Tensor, group: Any = None, *, in_place: bool = False) -> Tensor:
    """Return the sum of ``tensor`` over the ranks of ``group``, on the device of ``tensor``.

    ``in_place`` saves a copy and leaves ``tensor`` in an unknown state.
    """
    if not is_distributed(group):
        return tensor
    sent = tensor.to(wire_device(group), copy=not in_place).contiguous()
    with _meeting(group):
        dist.all_reduce(sent, group=group)
    return sent.to(tensor.device)


def broadcast(tensor: Tensor, source: int, group: Any = None) -> Tensor:
    """Return the ``tensor`` of rank ``source`` of ``group``, on the device of this rank's.

    Other ranks give one of the same shape and type, which may be overwritten.
    """
    if not is_distributed(group):
        return tensor
    sent = tensor.to(wire_device(group)).contiguous()
    with _meeting(group):
        dist.broadcast(torch.view_as_real(sent) if sent.is_complex() else sent, group=group, group_src=source)
    return sent.to(tensor.device)


def gather_tensors(own: Sequence[Tensor], group: Any = None) -> Iterator[list[Tensor]]:
    """Yield the tensors that every rank of ``group`` gave as ``own``, in order of rank, on the devices of this rank's.

    One broadcast for each tensor and rank, not a padded gather: sizes may differ, and nothing is sent of an empty one.
    """
    me, _ = rank_and_world(group)
    for rank, heads in enumerate(gather([(tuple(tensor.shape), tensor.dtype) for tensor in own], group)):
        like = zip(own, heads, strict=True)
        theirs = [t if rank == me else t.new_empty(shape, dtype=dtype) for t, (shape, dtype) in like]
        yield [broadcast(tensor, rank, group) if tensor.numel() else tensor for tensor in theirs]


def pass_on(tensor: Tensor, group: Any = None, *, to: int | None = None, source: int | None = None) -> Tensor | None:
    """Send ``tensor`` to the rank ``to``, or return the one, of the same shape and type, that ``source`` sends here.

    All ranks of ``group`` take part in such a round, also those that neither send nor receive, which get None.
    """
    here = torch.empty_like(tensor) if source is not None else tensor
    wire = here.to(wire_device(group)).contiguous()
    with _meeting(group):
        if to is not None:
            dist.send(wire, group=group, group_dst=to)
        elif source is not None:
            dist.recv(wire, group=group, group_src=source)
    return wire.to(tensor.device) if source is not None else None


def share_by_cost(costs: Mapping[str, float], world: int) -> list[list[str]]:
    """Return the names that each of ``world`` ranks takes on, cheapest first, the same on all ranks.

    The costliest is dealt first, each to the rank with the least to do.

    >>> share_by_cost({"a": 5, "b": 4, "c": 2, "d": 1}, 2)
    [['d', 'a'], ['c', 'b']]
    """
    loads = [0.0] * world
    shares: list[list[str]] = [[] for _ in range(world)]
    for name in sorted(costs, key=lambda name: (-costs[name], name)):
        least = loads.index(min(loads))
        loads[least] += costs[name]
        shares[least].append(name)
    return [share[::-1] for share in shares]


@contextmanager
def together(group: Any = None) -> Iterator[None]:
    """Run a section of code on all ranks of ``group`` so that nobody waits for a rank that fails in it.

    Inside, every function of this file that talks to these ranks first asks, in a handshake of one number, whether all
    are well, and so does the end of the section. A rank on which something raises an ``Exception`` answers the next
    handshake with that, wherever the others are; then all leave with a :class:`RankError` that names the ranks and
    their errors, on a failed rank from its own error. Where all ranks failed alike, each raises its own. A section
    within another one is part of it; calls to other groups of ranks take part in no handshake. With one rank nothing
    happens, and whatever is no ``Exception``, such as an interrupt, passes unanswered.

    Errors that are caught inside of the section must not skip a call that the other ranks make.
    """
    if _current.get() is not None or not is_distributed(group):
        yield
        return
    section = _Section(group)
    token = _current.set(section)
    try:
        yield
        section.meet()
    except Exception as error:
        if section.is_over:
            raise
        own = f"{type(error).__name__}: {error}"
        section.ask(own)
        if section.failures == [own] * len(section.ranks):
            raise  # as without a section
        raise section.error() from error
    finally:
        _current.reset(token)


class _Section:
    def __init__(self, group: Any) -> None:
        self.group = group
        self.ranks = _ranks(group)
        self.failures: list[str | None] = []
        self.is_over = False

    def meet(self) -> None:
        """Raise a :class:`RankError` if another rank has failed."""
        if not self.is_over:
            self.ask(None)
        if self.is_over:
            raise self.error()

    def ask(self, own: str | None) -> None:
        """Tell the others what failed on this rank, if anything, and learn their ``failures``; the last time if any."""
        self.is_over = True  # also where the others cannot be reached, who then must not be asked again
        failed = torch.tensor(int(own is not None), device=wire_device(self.group))
        dist.all_reduce(failed, group=self.group)
        if int(failed):
            self.failures = [None] * len(self.ranks)
            dist.all_gather_object(self.failures, own, group=self.group)
        else:
            self.is_over = False

    def error(self) -> RankError:
        named = [f"Rank {rank} failed: {text}" for rank, text in enumerate(self.failures) if text is not None]
        return RankError("; ".join(named) or "The other ranks cannot be reached any more.")


_current: ContextVar[_Section | None] = ContextVar("together", default=None)


def _ranks(group: Any) -> list[int]:
    return dist.get_process_group_ranks(dist.group.WORLD if group is None else group)


@contextmanager
def _meeting(group: Any) -> Iterator[None]:
    """Talk to the ranks of ``group``, inside of a section after the handshake that it asks for.

    The body may only communicate: whatever else fails in it leaves the others waiting.
    """
    section = _current.get()
    if section is None or section.ranks != _ranks(group):
        yield
        return
    section.meet()
    section.is_over = True
    yield
    section.is_over = False
