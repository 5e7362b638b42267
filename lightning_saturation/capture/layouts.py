"""Where the layers of one model hold features and samples: what their kinds say, and what a step was seen to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from lightning_saturation.capture.features import Neighbour, features_dim
from lightning_saturation.capture.kinds import Kind, kind_of
from lightning_saturation.capture.pooling import Layout
from lightning_saturation.capture.samples import Axis


class Layouts:
    """The layouts of the outputs of ``layers`` (by name) of ``model``.

    Samples are where a step was seen to have them; else where the kind says, where the modules around a layer have them
    by their ``batch_first``, or in the one dimension of the batch's size. ``neighbour`` is the last output of a layer
    of a known kind, beside which those of no known kind find their features.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        self.kinds: tuple[Kind | None, ...] = tuple(kind_of(module) for module in layers.values())
        self.neighbour: Neighbour | None = None
        self._second = tuple(samples_second(model, name) for name in layers)
        self.seen: list[tuple[int, int] | None] = [None] * len(self.kinds)  # by layer: its dimensions, its samples'
        self._features: dict[tuple[int, int], int] = {}

    def of(
        self, index: int, module: nn.Module, shape: Sequence[int], *, axis: Axis | None = None, samples: int = 0
    ) -> Layout:
        """Return the layout of an output of this ``shape`` of layer number ``index``.

        ``axis`` is where its samples were seen, and ``samples`` how many the batch has, 0 where that is not known.
        Raises ``ValueError`` where the features cannot be told.
        """
        dims = len(shape)
        layout = self._kind(index, module, shape).layout(module, dims)
        if dims <= layout.unbatched:
            return layout
        if axis is not None and axis.dim != dims + layout.features:
            self.seen[index] = dims, axis.dim
        known = self.expected(index)
        batch = known[1] if known[0] == dims else layout.batch
        if self.seen[index] is None and samples > 1 and shape[batch] % samples:
            fitting = [dim for dim in range(dims) if shape[dim] == samples and dim != dims + layout.features]
            batch = fitting[0] if len(fitting) == 1 else batch
        return layout._replace(batch=batch)

    def forget(self) -> None:
        """Forget where samples were seen."""
        self.seen = [None] * len(self.kinds)

    def expected(self, index: int) -> tuple[int, int]:
        """Return of which dimensions layer number ``index`` has outputs, and which of them holds the samples.

        They are -1 where only the layer's kind tells.
        """
        return self.seen[index] or ((3, 1) if self._second[index] else (-1, -1))

    def _kind(self, index: int, module: nn.Module, shape: Sequence[int]) -> Kind:
        kind, place = self.kinds[index], (index, len(shape))
        if kind is not None:
            return kind
        if place not in self._features:
            self._features[place] = features_dim(module, shape, self.neighbour)
        return Kind(features_dim=self._features[place])


def samples_second(model: nn.Module, name: str) -> bool:
    """Return whether the modules around layer ``name`` of ``model`` have positions before samples.

    The nearest that says so by its ``batch_first`` tells, or by that of an attention right in it.
    """
    around = [model]
    for part in name.split("."):
        inner = getattr(around[-1], part, None)
        if not isinstance(inner, nn.Module):
            break
        around.append(inner)
    for module in around[-2::-1]:
        attentions = (child for child in module.children() if isinstance(child, nn.MultiheadAttention))
        said = [getattr(each, "batch_first", None) for each in (module, *attentions)]
        if (known := next((each for each in said if isinstance(each, bool)), None)) is not None:
            return not known
    return False


def samples_second_everywhere(model: nn.Module) -> bool:
    """Return whether all modules of ``model`` that have a ``batch_first`` want positions before samples."""
    said = [module.batch_first for module in model.modules() if isinstance(getattr(module, "batch_first", None), bool)]
    return bool(said) and not any(said)
