"""Two thin layers in the place of one."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn


class LowRank(nn.Sequential):
    """``encode`` into few directions and ``decode`` from them, in the place of one linear or convolutional layer.

    Networks that take a layer's weights rather than call it (Mamba, PyTorch's own transformer in evaluation mode) find
    those of the layer that both stand for, made anew each time: the same values, and nothing saved there.
    """

    def __init__(self, encode: Any, decode: Any) -> None:
        super().__init__(OrderedDict(encode=encode, decode=decode))

    @property
    def weight(self) -> Tensor:
        """The weight (out, in, …) of both layers in one."""
        encode: Any = self._modules["encode"]
        decode: Any = self._modules["decode"]
        product: Tensor = torch.tensordot(decode.weight.flatten(1), encode.weight, 1)
        return product

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            behind = name == "bias" or name.startswith("out_")
            part = self._modules.get("decode" if behind else "encode")
            if part is None or name.startswith("_") or not hasattr(part, name):
                raise
            return getattr(part, name)
