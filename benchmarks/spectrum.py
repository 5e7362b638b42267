"""Error of eigenvalue histograms against operator products, and the seconds for one large layer.

    python benchmarks/spectrum.py                   # error table (minutes), then the layer of the paper
    python benchmarks/spectrum.py --only errors
    python benchmarks/spectrum.py --only layer      # 64 -> 256 channels, 3x3, 13x13 maps: H is 43,264 x 10,816
    python benchmarks/spectrum.py --only layer --exact   # and its exact eigenvalues: minutes, 2 GB

Methods: ours (spikes by ARPACK, deflated, Jackson-damped moments, halved), the paper's (undamped Chebyshev expansion
over the whole range, one product per moment; its largest eigenvalue is given for free) and stochastic Lanczos
quadrature with full reorthogonalisation. A product is one application of H and one of its adjoint; ARPACK's are
counted. The error is the largest difference of the cumulative share at 250 bin edges, and L1/n over the bins; medians
over seeds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from interleaved import machine, table
from torch import Tensor, nn

from lightning_saturation.functional import LayerOperator, eigenvalue_histogram
from lightning_saturation.operators.krylov import chebyshev_moments, cumulative_counts
from lightning_saturation.operators.linear_map import Gram, LinearMap, MatrixOperator

BINS = 250
SPIKES = 16


def spiked(outputs: int = 1152, inputs: int = 2304, strong: int = 12) -> MatrixOperator:
    """A Gaussian layer with ``strong`` directions far above its bulk, as in trained networks."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) / inputs**0.5
    left, right = (torch.linalg.qr(torch.randn(n, strong, generator=generator).double()).Q for n in matrix.shape)
    return MatrixOperator(matrix + left * torch.linspace(2.5, 8, strong).double() @ right.T)


def random_layer() -> LayerOperator:
    layer = nn.Conv2d(8, 24, 3, padding=1, bias=False)
    nn.init.kaiming_uniform_(layer.weight, generator=torch.Generator().manual_seed(0))
    return LayerOperator(layer, (8, 12, 12))


def heavy() -> MatrixOperator:
    """Eigenvalues that fall as a power of the rank."""
    values = torch.arange(1, 1153, dtype=torch.float64) ** -0.8
    basis = torch.linalg.qr(torch.randn(1152, 1152, generator=torch.Generator().manual_seed(0)).double()).Q
    return MatrixOperator(values.sqrt()[:, None] * basis)


def exact(operator: LinearMap) -> Tensor:
    return torch.linalg.eigvalsh(Gram(operator, block=64).dense()).clamp(min=0)


def errors(counts: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    difference = (counts - truth) / truth.sum()
    return float(np.abs(difference.cumsum()).max()), float(np.abs(difference).sum())


def ours(operator: LinearMap, edges: Tensor, budget: int, seed: int) -> tuple[np.ndarray, int]:
    spent = 300 if budget > 700 else 100
    probes = max(4, round((budget - spent) / 100))
    degree = max(2, 2 * (budget - spent) // probes)
    found = eigenvalue_histogram(
        operator, bins=BINS, spikes=SPIKES, probes=probes, degree=degree, seed=seed, method="stochastic"
    )
    return found.counts.numpy(), found.products


def undamped(operator: LinearMap, edges: Tensor, budget: int, seed: int) -> tuple[np.ndarray, int]:
    gram, top = Gram(operator), float(edges[-1])
    probes = max(4, budget // 100)
    degree = budget // probes
    starts = torch.stack([gram.probe(seed, index) for index in range(probes)])
    pairs = list(chebyshev_moments(lambda x: gram(x) * (2 / top) - x, starts, degree))
    below = cumulative_counts(torch.cat(pairs, dim=1)[:, : degree + 1], 2 * edges / top - 1, damped=False)
    below[:, 0], below[:, -1] = 0, gram.size
    return below.mean(0).diff().numpy(), probes * degree  # the paper's recursion makes a product per moment


def lanczos(operator: LinearMap, edges: Tensor, budget: int, seed: int) -> tuple[np.ndarray, int]:
    gram = Gram(operator)
    probes = max(4, budget // 100)
    steps = budget // probes
    counts = np.zeros(len(edges) - 1)
    for index in range(probes):
        start = gram.probe(seed, index)
        basis, diagonal, off = [start / start.norm()], [], []
        for _ in range(steps):
            image = gram(basis[-1][None])[0]
            diagonal.append(float(image @ basis[-1]))
            known = torch.stack(basis)
            for _ in range(2):  # once is not enough
                image -= known.T @ (known @ image)
            off.append(float(image.norm()))
            basis.append(image / off[-1])
        nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1))
        inside = np.clip(nodes, 0, float(edges[-1]))
        counts += np.histogram(inside, edges.numpy(), weights=vectors[0] ** 2 * gram.size)[0] / probes
    return counts, probes * steps


METHODS = {"ours": ours, "undamped Chebyshev": undamped, "stochastic Lanczos": lanczos}


def error_table(budgets: list[int], seeds: int) -> None:
    cases = {"spiked": spiked(), "random 3×3": random_layer(), "power law": heavy()}
    rows = []
    for case, operator in cases.items():
        values = exact(operator)
        edges = torch.linspace(0, float(values[-1]), BINS + 1, dtype=torch.float64)
        truth = np.histogram(np.clip(values.numpy(), 0, float(edges[-1])), edges.numpy())[0]
        for budget in budgets:
            for name, method in METHODS.items():
                runs = [method(operator, edges, budget, seed) for seed in range(seeds)]
                found = [errors(counts, truth) for counts, _ in runs]
                products = statistics.median(products for _, products in runs)
                numbers = [statistics.median(values) for values in zip(*found, strict=True)]
                rows.append((case, str(len(values)), name, f"{products:.0f}", *(f"{n:.4f}" for n in numbers)))
                print(*rows[-1], sep="\t", flush=True)
    print(table(rows, ("spectrum", "n", "method", "products", "max CDF error", "L1/n")))


def seed_layer(seed: int) -> LayerOperator:
    layer = nn.Conv2d(64, 256, 3, padding=1, bias=False)
    nn.init.kaiming_uniform_(layer.weight, generator=torch.Generator().manual_seed(seed))
    return LayerOperator(layer, (64, 13, 13))


def layer_table(seeds: int, with_exact: bool) -> None:
    rows = []
    for seed in range(seeds):
        operator = seed_layer(seed)
        start, cpu = time.perf_counter(), time.process_time()
        found = eigenvalue_histogram(operator)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        row = [f"{seed}", f"{wall:.1f}", f"{cpu:.1f}", str(found.products), f"{found.largest:.2f}"]
        row.append(f"{found.cdf_error:.4f}")
        if with_exact and seed == 0:
            start = time.perf_counter()
            values = exact(operator).numpy()
            edges = found.edges.numpy()
            truth = np.histogram(np.clip(values, 0, edges[-1]), edges)[0]
            cdf, distance = errors(found.counts.numpy(), truth)
            row += [f"{cdf:.4f}", f"{distance:.4f}", f"{values[-1]:.4f}", f"{time.perf_counter() - start:.0f}"]
        rows.append(tuple(row + ["—"] * (10 - len(row))))
        print(*rows[-1], sep="\t", flush=True)
    print(f"H {seed_layer(0).shape}; published λ_max of one such layer: 17.61")
    head = ("seed", "seconds", "CPU s", "products", "λ_max", "said CDF error", "CDF error", "L1/n", "exact λ_max")
    print(table(rows, (*head, "exact seconds")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("errors", "layer"))
    parser.add_argument("--budgets", type=int, nargs="+", default=[320, 640, 1280, 2560])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--exact", action="store_true", help="compare the large layer with its exact eigenvalues")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine("scipy"))
    if options.only != "layer":
        error_table(options.budgets, options.seeds)
    if options.only != "errors":
        layer_table(3, options.exact)


if __name__ == "__main__":
    main()
