"""What a user is told about layers without a measurement."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence

from torch import nn

from lightning_saturation.capture.coverage import ENOUGH, coverage, unknown_layers

NOT_FOLLOWED = (
    "Order, output layers and rows are told by calls and kinds of layers: no step was followed as it ran. Of what runs"
    " compiled only a sanity check (`num_sanity_val_steps`) is, and what `measure_*` runs"
)
"""What reports say where data were not followed through a step."""


class MissingLayers:
    """Warns once of each layer of ``model``, and of types of layers that nobody knows unless layers were ``chosen``.

    ``troubles`` say of what became of a layer a user was warned already.
    """

    def __init__(self, model: nn.Module, *, chosen: bool) -> None:
        self.troubles: dict[str, str] = {}
        self._model, self._chosen = model, chosen
        self._warned: set[str] = set()

    def warn(self, missing: Sequence[str], sharded: Collection[str], seen: Sequence[str]) -> None:
        """Warn of ``missing`` layers, some of which are ``sharded``, and of unknown ones beside those ``seen``."""
        self._warn_of_unknown(seen)
        new = [name for name in missing if name not in self._warned and name not in self.troubles]
        self._warned.update(new)
        shards = [name for name in new if name in sharded]
        if shards:
            warnings.warn(
                f"No saturation for {shards}: their outputs are narrower than the layers say, as with tensor"
                " parallelism, and a shard's saturation would be a wrong number.",
                stacklevel=3,
            )
        unseen = [name for name in new if name not in shards]
        if unseen:
            warnings.warn(
                f"No saturation for {unseen}: these layers were never run in the window, or run where hooks do not"
                " fire (a function compiled around them, a fused kernel, a weight that others read). Take them out"
                " with `exclude`, or name the module around them in `layers`.",
                stacklevel=3,
            )

    def _warn_of_unknown(self, seen: Sequence[str]) -> None:
        unknown = {} if self._chosen else unknown_layers(self._model)
        self._chosen = True
        if sum(unknown.values()) <= 1 - ENOUGH:
            return
        types = ", ".join(f"{kind} ({share:.0%})" for kind, share in unknown.items() if share >= 0.01)
        warnings.warn(
            f"Only {coverage(self._model, seen) or 0:.0%} of the network's weights are in layers that are seen. Of no"
            f" known kind are {types}: tell of such types with `register_layer`, or name modules with `layers`.",
            stacklevel=4,
        )
