"""Pairs of layers compared, whatever their outputs come from: sums, and one similarity for each pair."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.ranks import LOCAL, all_reduce, gather, rank_and_world
from lightning_saturation.covariance.state_metric import accumulation_device
from lightning_saturation.similarity.cca import correlate, weigh, whiten
from lightning_saturation.similarity.dft import correlate_frequencies, half_plane_weights, whiten_frequencies
from lightning_saturation.similarity.kernel_alignment import linear_cka, procrustes
from lightning_saturation.similarity.paired_sums import Pair, PairedSums
from lightning_saturation.similarity.report import SimilarityMatrix
from lightning_saturation.similarity.views import Key, Method, Outputs, Size, view

Passes = Callable[[], Generator[list[Outputs]]]
Shapes = list[dict[str, tuple[int, ...]]]
"""Of each network, the shape of one sample's output by layer, in the order in which the layers ran."""


class Comparison:
    """How layers are compared, and how much memory the sums may take at a time.

    ``passes()`` yields, batch by batch, what the layers of one network (which is compared with itself) or of two put
    out. It is called again where not all pairs fit into ``memory`` at a time; ``repeatable`` says whether it may be.
    """

    def __init__(
        self, *, method: Method, delta: float | None, resize: bool = False, memory: int = 2**31, group: Any = LOCAL
    ) -> None:
        self.method, self.delta, self.resize, self.memory, self.group = method, delta, resize, memory, group

    def matrix(self, passes: Passes, *, repeatable: bool = True) -> SimilarityMatrix:
        """Return the similarity of every layer of the first network with every layer of the last."""
        outputs = passes()
        with closing(outputs):
            head = next(outputs, None)
            shapes, pairs, centres = self._agree(head)
            blocks = self._blocks(pairs, centres)
            if len(blocks) > 1 and not repeatable:
                raise ValueError(
                    f"Expected `batches` that can be iterated over {len(blocks)} times, because the sums over all pairs"
                    f" take {self._bytes(pairs, centres)} bytes and `memory` is {self.memory}; got an iterator."
                )
            sums = self._summed(blocks[0], centres, chain([] if head is None else [head], outputs))
        values, samples = self._solved(sums, blocks[0])
        for block in blocks[1:]:
            with closing(passes()) as again:
                sums = self._summed(block, centres, again)
            found, more = self._solved(sums, block)
            values, samples = values | found, max(samples, more)
        rows, columns = tuple(shapes[0]), tuple(shapes[-1])
        table = [[values[(a, b)] if (a, b) in values else values[(b, a)] for b in columns] for a in rows]
        most = max(self._bytes(block, centres) for block in blocks)
        return SimilarityMatrix(rows, columns, torch.tensor(table, dtype=torch.float64), self.method, samples, most)

    def _summed(self, pairs: Sequence[Pair], centres: Mapping[Key, Tensor], outputs: Any) -> PairedSums:
        sums = PairedSums(pairs, centres, lengths=self.method == "debiased_cka")
        for batch in outputs:
            sums.add({key: self._view(batch, key) for key in sums.keys})
        sums.all_reduce(self.group)
        return sums

    def _solved(self, sums: PairedSums, pairs: Sequence[Pair]) -> tuple[dict[tuple[str, str], float], int]:
        values = solve(sums, pairs, method=self.method, delta=self.delta, group=self.group)
        named = {(left.layer, right.layer): value for (left, right), value in zip(pairs, values, strict=True)}
        return named, max(map(sums.samples, sums.keys))

    def _agree(self, head: list[Outputs] | None) -> tuple[Shapes, list[Pair], dict[Key, Tensor]]:
        """Return shapes, pairs and the centres of all sums, the same on every rank: those of the lowest with data."""
        found = None
        if head is not None and all(head):
            shapes = [{name: tuple(output.shape[1:]) for name, output in outputs.items()} for outputs in head]
            pairs = self._pairs(shapes)
            keys = dict.fromkeys(key for pair in pairs for key in pair)
            found = shapes, {key: self._view(head, key).mean(1).cpu() for key in keys}
        seen = {rank: theirs for rank, theirs in enumerate(gather(found, self.group)) if theirs is not None}
        if not seen:
            raise ValueError("Expected `batches` with at least one batch that reaches a layer, got none.")
        shapes, centres = next(iter(seen.values()))
        for rank, theirs in seen.items():
            if theirs[0] != shapes:
                raise RuntimeError(f"Expected outputs of the same shapes on every rank, but rank {rank} differs.")
        home = torch.device("cpu") if head is None else accumulation_device(next(iter(head[0].values())).device)
        # The first batch may hold no finite sample, whose mean is NaN; any centre is right, zero too.
        numbers = {key: torch.where(centre.isfinite(), centre, 0).to(home) for key, centre in centres.items()}
        return shapes, self._pairs(shapes), numbers

    def _pairs(self, shapes: Shapes) -> list[Pair]:
        """Return the pairs of layers to compare; of one network with itself each once."""
        alike = len(shapes) == 1
        pairs = []
        for i, (left, one) in enumerate(shapes[0].items()):
            for j, (right, other) in enumerate(shapes[-1].items()):
                if alike and j < i:
                    continue
                size = self._size(left, one, right, other)
                pairs.append((Key(0, left, size), Key(0 if alike else 1, right, size)))
        return pairs

    def _size(self, left: str, one: tuple[int, ...], right: str, other: tuple[int, ...]) -> Size | None:
        if len(one) != 3:
            return None
        if one[1:] != other[1:] and not self.resize:
            raise ValueError(
                f"Expected maps of one height and width, got {one[1:]} from {left!r} and {other[1:]} from {right!r}."
                " `resize=True` cuts the larger ones down to the common low frequencies; pooling by 'mean' needs none."
            )
        return min(one[1], other[1]), min(one[2], other[2])

    def _view(self, batch: list[Outputs], key: Key) -> Tensor:
        output = batch[key.side][key.layer]
        return view(output.to(accumulation_device(output.device)), size=key.size, method=self.method)

    def _bytes(self, pairs: Sequence[Pair], centres: Mapping[Key, Tensor]) -> int:
        keys = {key for pair in pairs for key in pair}
        products = [(key, key) for key in keys] + list(pairs)
        return sum(self._product_bytes(left, right, centres) for left, right in products)

    def _product_bytes(self, left: Key, right: Key, centres: Mapping[Key, Tensor]) -> int:
        more = int(self.method == "debiased_cka")
        frequencies, features = centres[left].shape
        products = frequencies * (features + more) * (centres[right].shape[1] + more)
        return products * centres[left].element_size()

    def _blocks(self, pairs: Sequence[Pair], centres: Mapping[Key, Tensor]) -> list[list[Pair]]:
        """Return ``pairs`` in as few runs as fit into memory one at a time; a pair that alone does not is a run."""
        blocks: list[list[Pair]] = []
        taken, keys = 0, set[Key]()
        for pair in pairs:
            alone = self._bytes([pair], centres)
            more = alone - sum(self._product_bytes(key, key, centres) for key in keys.intersection(pair))
            if not blocks or taken + more > self.memory:
                blocks.append([])
                taken, keys, more = 0, set(), alone
            blocks[-1].append(pair)
            taken, keys = taken + more, keys.union(pair)
        return blocks


def compare_rows(
    left: Mapping[str, Tensor], right: Mapping[str, Tensor], *, method: Method, delta: float | None
) -> SimilarityMatrix:
    """Return the similarity of every layer in ``left`` with every layer in ``right``, rows of the same samples."""
    finite = torch.stack([rows.isfinite().all(1) for rows in (*left.values(), *right.values())]).all(0)
    batch: list[Outputs] = [{name: rows[finite] for name, rows in side.items()} for side in (left, right)]

    def passes() -> Generator[list[Outputs]]:
        yield batch

    return Comparison(method=method, delta=delta, memory=2**62, group=LOCAL).matrix(passes)


def compare_same_layers(
    left: Mapping[str, Tensor], right: Mapping[str, Tensor], *, method: Method, delta: float | None
) -> dict[str, float]:
    """Return the similarity of every layer with itself at another time."""
    return {
        name: compare_rows({name: rows}, {name: right[name]}, method=method, delta=delta)[name, name]
        for name, rows in left.items()
        if name in right
    }


def solve(
    sums: PairedSums, pairs: Sequence[Pair], *, method: Method, delta: float | None, group: Any = None
) -> list[float]:
    """Return the similarity of every one of ``pairs``; each rank solves its share, and all get all.

    Each layer is whitened once, however many pairs it is in. Warnings about too few samples become one.
    """
    rank, world = rank_and_world(group)
    value = _solver(sums, method, delta)
    values = torch.zeros(len(pairs), dtype=torch.float64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for index in range(rank, len(pairs), world):
            values[index] = value(pairs[index])
    few = [str(warning.message) for warning in caught if "too few" in str(warning.message)]
    for other in caught:
        if "too few" not in str(other.message):
            warnings.warn(other.message, other.category, stacklevel=3)
    if few:
        warnings.warn(f"In {len(few)} of {len(pairs)} pairs of layers: {few[0]}", stacklevel=3)
    return all_reduce(values, group).tolist()


def _solver(sums: PairedSums, method: Method, delta: float | None) -> Callable[[Pair], Tensor]:
    if method == "dft_cca":
        return _frequency_solver(sums, delta)
    if method in ("cka", "debiased_cka"):
        return lambda pair: linear_cka(sums.moments(pair), debiased=method == "debiased_cka")
    if method == "procrustes":
        return lambda pair: procrustes(sums.moments(pair), normalize=True)

    @cache
    def white(key: Key) -> Tensor:
        return whiten(sums.scatter(key)[0], delta=delta)

    def value(pair: Pair) -> Tensor:
        moments = sums.moments(pair)
        found = correlate(moments, white(pair[0]), white(pair[1]))
        return found.mean if method == "svcca" else weigh(moments, found).mean

    return value


def _frequency_solver(sums: PairedSums, delta: float | None) -> Callable[[Pair], Tensor]:
    def weights(key: Key) -> Tensor:
        height, width = key.size or (1, 1)
        return half_plane_weights(height, width, device=sums.scatter(key).device).flatten()[None]

    @cache
    def white(key: Key) -> tuple[Tensor, Tensor]:
        return whiten_frequencies(sums.scatter(key)[None], weights(key), delta=delta)

    def value(pair: Pair) -> Tensor:
        left, right = pair
        cross = sums.cross(pair)[None]
        return correlate_frequencies(white(left), white(right), cross, weights(left), sums.samples(left)).mean

    return value
