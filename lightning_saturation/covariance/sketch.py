"""The scatter of wide rows in a few of them, with bounds on what that leaves out: Frequent Directions."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_saturation.shapes import Float, Int

_EPS = torch.finfo(torch.float64).eps


class Sketch(NamedTuple):
    """Rows ``B`` that stand for a centred scatter ``M = Σ (x − mean)(x − mean)ᵀ``, float64.

    Always ``BᵀB ⪯ M ⪯ BᵀB + shrinkage · I``, and ``trace`` is that of ``M`` exactly; ``rounding`` bounds what float64
    arithmetic adds to either. The rows of ``B`` are orthogonal, so their squared norms are the eigenvalues of ``BᵀB``.

    Centring keeps the certificate. Let rows in two parts have counts ``n_a, n_b`` and means ``m_a, m_b``. Then (Chan,
    Golub and LeVeque, 1979) ``M = M_a + M_b + w wᵀ`` with ``w = (m_b − m_a) √(n_a n_b / (n_a + n_b))``: the scatter
    about the common mean is a sum of *positive* parts, and nothing has to be subtracted from what a sketch has already
    forgotten. So a part enters as its rows minus their own mean, and the shift of the mean enters as one more row
    ``w``: the rows ``[B_a; X_b − m_b; w]``, or ``[B_a; B_b; w]`` when two sketches merge, have exactly the Gram matrix
    ``M − E_a − E_b`` with ``0 ⪯ E_a ⪯ Δ_a I`` and likewise for b. Shrinking them subtracts ``0 ⪯ F ⪯ σ² I``, where
    ``σ²`` is the largest eigenvalue that is let go. Errors of one sign add up:
    ``0 ⪯ M − BᵀB ⪯ (Δ_a + Δ_b + σ²) I``.
    The traces add up exactly, ``tr M = tr M_a + tr M_b + ‖w‖²``.

    Rounding keeps it too. Means are kept as an ``offset`` from a fixed row, the ``shift``, so that what they lose does
    not grow with their distance from zero; ``drift`` bounds how far the computed mean is from the true one, and
    ``rounding`` takes in what that does to ``w wᵀ``: ``2 ‖w‖ s E + (s E)²`` for means of error ``E``, with
    ``s = √(n_a n_b / (n_a + n_b))``.

    Source: Liberty, *Simple and deterministic matrix sketching*, 2013; Ghashami et al., *Frequent Directions*, 2016.
    """

    samples: Int[Tensor, ""]
    shift: Float[Tensor, " features"]
    offset: Float[Tensor, " features"]
    rows: Float[Tensor, "size features"]
    trace: Float[Tensor, ""]
    shrinkage: Float[Tensor, ""]
    rounding: Float[Tensor, ""]
    drift: Float[Tensor, ""]

    @property
    def mean(self) -> Float[Tensor, " features"]:
        """The mean of the rows."""
        return self.shift + self.offset


def sketch_size(features: int) -> int:
    """Return the default number of rows: a 32nd of the features, at least 64; the state is 1/32 of the exact one."""
    return max(64, features // 32)


def empty_sketch(features: int, *, size: int | None = None, device: torch.device | str | None = None) -> Sketch:
    """Return the sketch of no rows, with room for ``size`` directions."""
    size = sketch_size(features) if size is None else size
    if size < 1:
        raise ValueError(f"Expected a sketch `size` of at least 1 row, got {size}.")
    with torch.inference_mode(False):  # what is allocated in inference mode could not be updated outside it
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        samples = torch.zeros((), dtype=torch.int64, device=device)
        return Sketch(samples, zeros(features), zeros(features), zeros(size, features), *(zeros(()) for _ in range(4)))


def add_to_sketch(
    sketch: Sketch, rows: Float[Tensor, "samples features"], *, weight: int = 1
) -> tuple[Sketch, Int[Tensor, ""]]:
    """Return ``sketch`` with ``rows`` added, each as often as ``weight`` says, and how many were left out.

    Those are the rows with NaN or infinity. Parts of as many rows as the sketch holds cost least. Nothing waits for the
    device.
    """
    rows = rows.detach().to(sketch.rows)
    finite = rows.isfinite().all(dim=1)
    counted = finite.sum()
    if not len(rows):
        return sketch, counted
    first = torch.where(finite[:, None], rows, 0.0)[finite.int().argmax()]
    shift = torch.where(sketch.samples > 0, sketch.shift, first)
    moved = torch.where(finite[:, None], rows - shift, 0.0)
    offset = moved.sum(0) / counted.clamp(min=1)
    squares = moved.square().sum()
    rows = torch.where(finite[:, None], moved - offset, 0.0) * weight**0.5
    # A sum of n terms is off by n eps of the sum of their sizes at most (Higham, section 4.2), whatever its order.
    drift = (len(rows) + 3) * _EPS * (squares / counted.clamp(min=1)).sqrt()
    rounding = weight * (counted * drift.square() + 4 * _EPS * squares)
    part = Sketch(counted * weight, shift, offset, rows, rows.square().sum(), torch.zeros_like(drift), rounding, drift)
    return merge_sketches(sketch, part), len(rows) - counted


def merge_sketches(first: Sketch, second: Sketch) -> Sketch:
    """Return the sketch of both sets of rows together, of the size of ``first``; either may be empty."""
    samples = first.samples + second.samples
    share = second.samples.double() / samples.clamp(min=1)  # of integers it would be float32
    apart = second.shift - first.shift
    difference = torch.where(second.samples > 0, apart + (second.offset - first.offset), torch.zeros_like(apart))
    root = (first.samples * share).sqrt()
    between = difference * root
    trace = first.trace + second.trace + between.square().sum()
    rows, let_go = _shrink([first.rows, second.rows, between[None]], len(first.rows))
    size = len(first.rows) + len(second.rows) + 1
    lengths = apart.norm() + first.offset.norm() + second.offset.norm()
    unsure = root * (first.drift + second.drift + 3 * _EPS * lengths)
    drift = first.drift * (1 - share) + second.drift * share + 4 * _EPS * (first.offset.norm() + difference.norm())
    known = first.samples > 0
    return Sketch(
        samples,
        torch.where(known, first.shift, second.shift),
        torch.where(known, first.offset + difference * share, second.offset),
        rows,
        trace,
        first.shrinkage + second.shrinkage + let_go,
        # The eigenproblem of the Gram matrix is accurate to a few eps of its trace, whatever the eigenvalue.
        first.rounding + second.rounding + 4 * size * _EPS * trace + (2 * between.norm() + unsure) * unsure,
        torch.where(known, drift, second.drift),
    )


def _shrink(parts: list[Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Return ``size`` orthogonal rows for those of ``parts``, and the largest eigenvalue that this lets go.

    The Gram matrix among rows is small where rows are wide: its eigenvectors rotate the rows into orthogonal ones.
    """
    with torch.autocast(parts[0].device.type, enabled=False):
        gram = torch.cat([torch.cat([a @ b.T for b in parts], dim=1) for a in parts])
        squares, vectors = torch.linalg.eigh(gram)
        squares, vectors = squares.flip(0).clamp(min=0), vectors.flip(1)
        kept = squares[:size]
        let_go = squares[size] if len(squares) > size else squares.new_zeros(())
        scale = ((kept - let_go).clamp(min=0) / kept.clamp(min=torch.finfo(torch.float64).tiny)).sqrt()
        rotation = (vectors[:, :size] * scale).T
        rows = parts[0].new_zeros(size, parts[0].shape[1])
        for part, columns in zip(parts, rotation.split([len(part) for part in parts], dim=1), strict=True):
            rows.addmm_(columns, part)
    return rows, let_go
