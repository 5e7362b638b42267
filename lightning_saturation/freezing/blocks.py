"""A network as blocks from the input upwards, and blocks that stand still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from lightning_saturation.capture.select import select_layers


@dataclass(frozen=True)
class Block:
    """Modules that freeze together: their own parameters, and the tracked ``layers`` among them."""

    modules: dict[str, nn.Module]
    layers: tuple[str, ...]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the modules hold themselves."""
        return [p for module in self.modules.values() for p in module.parameters(recurse=False)]


def find_blocks(model: nn.Module, patterns: Sequence[str | Sequence[str]] | None) -> list[Block]:
    """Return the blocks of ``model``, in the order in which its modules are declared, or those of ``patterns``.

    By default each linear, convolutional, recurrent or attention layer starts a block, and what holds parameters after
    it (normalisation) belongs to it. Each of ``patterns`` is a name or glob, or several: a block of all modules that it
    matches, and of all below these. Raises ``ValueError`` for a pattern that matches no module with parameters, and for
    fewer than two blocks.
    """
    tracked = set(select_layers(model))
    holders = {
        name: module for name, module in model.named_modules() if [*module.parameters(recurse=False)] or _counts(module)
    }
    groups = _by_layer(holders, tracked) if patterns is None else [_matching(holders, each) for each in patterns]
    if len(groups) < 2:
        raise ValueError(f"Expected at least two blocks to freeze one after the other, got {len(groups)}.")
    return [Block({n: holders[n] for n in names}, tuple(n for n in names if n in tracked)) for names in groups]


def _by_layer(holders: dict[str, nn.Module], tracked: set[str]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    started = False
    for name in holders:
        # What stands before the first layer, such as position embeddings, belongs to it; what is below a tracked
        # attention layer belongs to that.
        below = any(name.startswith(f"{layer}.") for layer in tracked)
        if name in tracked and not below:
            if started:
                groups.append([])
            started = True
        groups[-1].append(name)
    return groups


def _matching(holders: dict[str, nn.Module], patterns: str | Sequence[str]) -> list[str]:
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    names = [
        name
        for name in holders
        if any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in listed)
    ]
    if not names:
        raise ValueError(f"Expected `blocks` to match modules with parameters, among {[*holders]}, got {patterns!r}.")
    return names


def _counts(module: nn.Module) -> bool:
    """Return whether ``module`` keeps running statistics of what passes through it."""
    return getattr(module, "track_running_stats", False) is True


class Freezer:
    """Blocks that stand still, and how everything was before."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = list(blocks)
        self.count = 0
        self._learned: list[tuple[nn.Parameter, bool]] = []
        self._modes: list[tuple[nn.Module, bool]] = []

    @property
    def parameters(self) -> int:
        """How many numbers that were learned before stand still."""
        return sum(p.numel() for p, learned in self._learned if learned)

    def freeze(self, count: int) -> bool:
        """Freeze the first ``count`` blocks and return whether any of them was not frozen before."""
        before, self.count = self.count, max(self.count, count)
        for block in self.blocks[before : self.count]:
            for parameter in block.parameters:
                self._learned.append((parameter, parameter.requires_grad))
                parameter.requires_grad_(False)
                # Optimizers skip what has no gradient: neither momentum nor weight decay moves it.
                parameter.grad = None
            self._modes += [(module, module.training) for module in block.modules.values() if _counts(module)]
        self.hold()
        return self.count > before

    def hold(self) -> None:
        """Keep running statistics still: Trainers put whole models into training mode again and again."""
        for module, _ in self._modes:
            module.training = False

    def undo(self) -> None:
        """Let everything learn that did before."""
        for parameter, learned in self._learned:
            parameter.requires_grad_(learned)
        for module, training in self._modes:
            module.training = training
        self.count = 0
        self._learned.clear()
        self._modes.clear()
