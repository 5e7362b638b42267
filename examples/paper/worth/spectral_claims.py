"""The claims of *Evolution of Eigenvalue Decay* and of Ansuini et al. on intrinsic dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

from paper.figures.records import Record, like_the_paper
from paper.settings import CAT_DOG, PHOTOS, Settings
from paper.worth.claims import Claim, Study, average, correlation, of_runs, of_studies


def claims() -> list[Claim]:
    """Return the claims of both."""
    return [*_decay(), *_dimension()]


def _decay() -> list[Claim]:
    def convolutional(settings: Settings) -> bool:
        return settings.model.startswith(("vgg", "resnet")) and like_the_paper(settings)

    paper = "Eigenvalue decay"
    return [
        of_runs(
            f"{paper}, 1",
            "The vast majority of a trained layer's eigenvalues is small.",
            "share of eigenvalues in the lowest tenth of the range less one half",
            "*_vgg*",
            convolutional,
            average(_small_share),
        ),
        of_runs(
            f"{paper}, 3",
            "Training makes a few eigenvalues large: the largest grows.",
            "log ratio of the largest eigenvalue, trained over untrained, mean over layers",
            "*_vgg*",
            convolutional,
            average(lambda r: _spectral(r, "largest")),
        ),
        of_runs(
            f"{paper}, 3",
            "… and the stable rank falls.",
            "log ratio of the stable rank, untrained over trained",
            "*_vgg*",
            convolutional,
            average(lambda r: -_spectral(r, "stable_rank")),
        ),
        of_studies(
            f"{paper}, 3",
            "The drop of the learning rate shows in the spectra: norms grow more slowly behind it.",
            "growth of the Frobenius norm an epoch before the drop less that behind it, mean over layers",
            "drop",
            _slower,
        ),
    ]


def _dimension() -> list[Claim]:
    def classifier(settings: Settings) -> bool:
        return settings.task == "classify" and like_the_paper(settings)

    def deep(settings: Settings) -> bool:
        return classifier(settings) and settings.model != "mlp"

    def on(data: str):
        return lambda settings: classifier(settings) and settings.data == data

    paper = "Intrinsic dimension (Ansuini et al.)"
    return [
        of_runs(
            f"{paper}, result 1",
            "Over depth the dimension rises, then falls (a hunchback).",
            "dimension at the highest inner checkpoint over the larger of both ends, log",
            "*_vgg*",
            deep,
            average(_hunch),
        ),
        of_runs(
            f"{paper}, result 1",
            "It is far below the number of features (a tenth).",
            "0.1 less the median over layers of dimension / features",
            "*",
            classifier,
            average(lambda r: 0.1 - float(np.median(_ratios(r)))),
        ),
        *(
            of_runs(
                f"{paper}, result 3 ({data})",
                "A lower dimension of the last hidden layer goes with higher accuracy.",
                "rank correlation over networks, turned",
                f"{data}_*",
                on(data),
                correlation(_last_hidden, lambda r: r.accuracy, sign=-1),
            )
            for data in (PHOTOS, CAT_DOG)
        ),
        of_runs(
            f"{paper}, result 4",
            "PCA counts many more dimensions than TwoNN.",
            "log ratio PCA / TwoNN, mean over layers",
            "*",
            classifier,
            average(_pca_over),
        ),
        of_runs(
            f"{paper}, result 4",
            "PCA's count hardly tells trained weights from random ones, TwoNN does.",
            "mean absolute log ratio trained / random, TwoNN less PCA",
            "*",
            classifier,
            average(_tells_apart),
        ),
        of_runs(
            f"{paper}, result 4",
            "With random weights TwoNN's profile is flatter.",
            "spread of log dimension over layers, trained less random",
            "*",
            classifier,
            average(_flatter),
        ),
    ]


def _both(record: Record) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    found = record.numbers["measured"].get("spectrum") or {"trained": {}, "untrained": {}}
    pairs = ((found["trained"][name], found["untrained"].get(name, {})) for name in found["trained"])
    return [(a, b) for a, b in pairs if "counts" in a and "counts" in b]


def _small_share(record: Record) -> float | None:
    shares = []
    for trained, _ in _both(record):
        counts = np.array(trained["counts"], dtype=float)
        shares.append(counts[: len(counts) // 10].sum() / counts.sum())
    return float(np.mean(shares)) - 0.5 if shares else None


def _spectral(record: Record, key: str) -> float:
    pairs = _both(record)
    return float(np.mean([np.log(a[key] / b[key]) for a, b in pairs])) if pairs else float("nan")


def _slower(study: Study) -> float:
    values = []
    for part in study["parts"].values():
        rates = np.array([lr[0] for lr in part["lr"]], dtype=float)
        drop = int((rates < 0.5 * rates[0]).argmax()) or len(rates) - 1
        epochs = np.array(part["epochs"], dtype=float)
        for layer in part["layers"].values():
            norms = np.log(np.array(layer["frobenius_norm"], dtype=float))
            before = (norms[drop - 1] - norms[1]) / max(epochs[drop - 1] - epochs[1], 1)
            values.append(abs(before) - abs((norms[-1] - norms[drop]) / max(epochs[-1] - epochs[drop], 1)))
    return float(np.mean(values))


def _layers(record: Record, weights: str = "trained") -> list[dict[str, Any]]:
    found = record.numbers["measured"].get("dimension") or {weights: {}}
    return [layer for layer in found[weights].values() if layer.get("two_nn")]


def _hunch(record: Record) -> float | None:
    values = np.log([layer["two_nn"] for layer in _layers(record)])
    return float(values[1:-1].max() - max(values[0], values[-1])) if len(values) > 2 else None


def _ratios(record: Record) -> list[float]:
    return [layer["two_nn"] / layer["features"] for layer in _layers(record)]


def _last_hidden(record: Record) -> float:
    found = record.numbers["measured"]["dimension"]
    return float(found["trained"][found["last_hidden"]]["two_nn"])


def _pca_over(record: Record) -> float | None:
    values = [np.log(layer["pca"] / layer["two_nn"]) for layer in _layers(record)]
    return float(np.mean(values)) if values else None


def _tells_apart(record: Record) -> float | None:
    pairs = list(zip(_layers(record), _layers(record, "random"), strict=False))[1:]
    if not pairs or len(_layers(record)) != len(_layers(record, "random")):
        return None
    by_key = {key: np.mean([abs(np.log(a[key] / b[key])) for a, b in pairs]) for key in ("two_nn", "pca")}
    return float(by_key["two_nn"] - by_key["pca"])


def _flatter(record: Record) -> float | None:
    spread = [np.std(np.log([layer["two_nn"] for layer in _layers(record, w)][1:])) for w in ("trained", "random")]
    return float(spread[0] - spread[1]) if len(_layers(record)) > 2 else None
