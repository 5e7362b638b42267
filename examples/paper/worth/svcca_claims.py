"""The claims of SVCCA (Raghu et al.) and of convergent learning (Li et al., in Wu's lecture)."""

from __future__ import annotations

from typing import Any

import numpy as np

from paper.settings import PHOTOS
from paper.worth.claims import Claim, Study, of_studies
from paper.worth.statistics import spearman

CLOSE = 0.01
"""Accuracy within which a network counts as doing the same."""


def claims() -> list[Claim]:
    """Return the claims of both."""
    return [*_svcca(), *_convergent()]


def _svcca() -> list[Claim]:
    paper = "SVCCA"
    return [
        of_studies(
            f"{paper}, figure 1",
            "Two networks' neurons differ where their SVCCA directions agree.",
            "mean absolute correlation of four SVCCA directions less that of the four most active neurons, above 0.1",
            "toy",
            _toy_agreement,
            least=0.1,  # less is no difference that one sees
        ),
        of_studies(
            f"{paper}, figure 3",
            "Of 200 neurons 30 SVCCA directions carry the output (5 % of its variance unexplained).",
            "0.05 less the share unexplained",
            "toy",
            lambda s: 0.05 - s["parts"]["toy"]["unexplained"]["30"],
        ),
        of_studies(
            f"{paper}, 2.1, figure 2a",
            "A layer does its work with a fraction of its directions, of neurons it needs more.",
            "share of features needed (accuracy within 0.01), active neurons less SVCCA directions, three layers",
            "pair",
            _fewer_directions,
        ),
        of_studies(
            f"{paper}, 2.1, figure 2b",
            "SVCCA directions are spread over neurons.",
            "accuracy lost where the directions are put on as many neurons as a quarter of the layer",
            "pair",
            _spread,
        ),
        of_studies(
            f"{paper}, 4.1, figure 4",
            "Networks converge from the bottom up.",
            "rank correlation of a layer's depth and its similarity with its end at 35 % of training, turned",
            "dynamics",
            _bottom_up,
        ),
        of_studies(
            f"{paper}, 4.2, figure 5",
            "Freezing layers saves time.",
            "1 less the ratio of processor times, linear schedule",
            "freezing",
            lambda s: _frozen(s, "time"),
        ),
        of_studies(
            f"{paper}, 4.2, figure 5",
            "Freezing layers helps generalisation.",
            "change of test accuracy, linear schedule, mean over seeds",
            "freezing",
            lambda s: _frozen(s, "accuracy"),
        ),
        of_studies(
            f"{paper}, 4.3, figure 6",
            "Layers near the output know more of the classes.",
            "rank correlation of depth and mean correlation with the logits",
            "dynamics",
            _classes,
        ),
        of_studies(
            f"{paper}, 4.4, figure 7",
            "Lower layers of a ResNet and of a convnet are more alike than higher ones.",
            "mean similarity of the lower halves less that of the upper halves",
            "architectures",
            _lower_alike,
        ),
        of_studies(
            f"{paper}, 4.4",
            "All layers can keep 0.35 of their features and hardly lose accuracy (0.02).",
            "0.02 less the accuracy lost",
            "pair",
            lambda s: 0.02 + _compressed(s, "svcca 0.35"),
        ),
    ]


def _convergent() -> list[Claim]:
    paper = "Convergent learning (Li et al.; Wu's lecture)"
    return [
        of_studies(
            paper,
            "Units of two networks match one to one less well, the deeper the layer.",
            "rank correlation of depth and mean matched correlation on held-out samples, turned",
            "pair",
            _matching_falls,
        ),
        of_studies(
            paper,
            "A few units predict one better than the best single one does.",
            "variance explained at L1 penalty 0.01 less the best partners' correlation squared, held-out samples",
            "pair",
            _sparse_gains,
        ),
        of_studies(
            paper,
            "Networks that generalise converge to more similar solutions than those that memorise.",
            "PWCCA between seeds on test images, true labels less random ones, mean over layers",
            "memorising",
            _memorising,
        ),
        of_studies(
            paper,
            "Wider networks converge to more similar solutions.",
            "PWCCA between seeds, widest less narrowest, mean over layers",
            "widths",
            _wider,
        ),
        of_studies(
            paper,
            "A pruned wide network beats one that was narrow from the start.",
            "test accuracy, mean over seeds",
            "pruned",
            _pruned,
        ),
    ]


def _toy_agreement(study: Study) -> float:
    found = study["parts"]["toy"]["agreement"]
    return float(np.mean(found["SVCCA directions"]) - np.mean(found["most active neurons"]))


def _fewer_directions(study: Study) -> float:
    whole = study["parts"]["whole"]["accuracy"]

    def needed(layer: dict[str, Any], basis: str) -> float:
        enough = [k for k, a in zip(layer["counts"], layer[basis], strict=True) if a >= whole - CLOSE]
        return min(enough, default=layer["features"]) / layer["features"]

    layers = study["parts"]["directions"].values()
    return float(np.mean([needed(layer, "active") - needed(layer, "svcca") for layer in layers]))


def _spread(study: Study) -> float:
    lost = []
    for layer in study["parts"]["distributed"].values():
        curves = {int(m): values for m, values in layer["neurons"].items()}
        lost.append(np.mean(curves[max(curves)]) - np.mean(curves[layer["features"] // 4]))
    return float(np.mean(lost))


def _bottom_up(study: Study) -> float:
    panes = study["parts"]["dynamics"]["panes"]
    share = min(panes, key=lambda name: abs(float(name) - 0.35))
    own = np.diagonal(np.array(panes[share]["values"], dtype=float))
    return -spearman(np.arange(len(own)), own)


def _frozen(study: Study, what: str) -> float:
    parts = study["parts"]
    seeds = sorted(name.split(" ")[1] for name in parts if name.startswith("plain"))
    if what == "time":
        times = [[sum(parts[f"{kind} {s}"]["processor_seconds"]) for s in seeds] for kind in ("linear", "plain")]
        return 1 - sum(times[0]) / sum(times[1])
    found = [[np.mean(parts[f"{kind} {s}"]["val/accuracy"][-3:]) for s in seeds] for kind in ("linear", "plain")]
    return float(np.mean(found[0]) - np.mean(found[1]))


def _classes(study: Study) -> float:
    means = [np.mean(values) for values in study["parts"]["classes"].values()]
    return spearman(np.arange(len(means)), np.array(means))


def _lower_alike(study: Study) -> float:
    values = np.array(study["parts"]["matrix"]["values"], dtype=float)
    rows, columns = (n // 2 for n in values.shape)
    return float(np.nanmean(values[:rows, :columns]) - np.nanmean(values[rows:, columns:]))


def _compressed(study: Study, key: str) -> float:
    return float(study["parts"]["compression"][key][-1][0] - study["parts"]["whole"]["accuracy"])


def _matching_falls(study: Study) -> float:
    found = [layer["bipartite"] for layer in study["parts"]["units"]["layers"]]
    return -spearman(np.arange(len(found)), np.array(found))


def _sparse_gains(study: Study) -> float:
    layers = study["parts"]["units"]["layers"]
    # losses are half the mean squared error of units of variance one
    return float(np.mean([(1 - 2 * layer["loss at decay 0.01"]) - layer["semi"] ** 2 for layer in layers]))


def _alike(study: Study, name: str) -> float:
    parts = [part for key, part in study["parts"].items() if key.startswith(name)]
    return float(np.mean([np.mean(list(part["pwcca test"].values())) for part in parts]))


def _memorising(study: Study) -> float:
    return _alike(study, PHOTOS) - _alike(study, "random-labels")


def _wider(study: Study) -> float:
    widths = sorted({key.split("_")[2].split(" ")[0] for key in study["parts"]}, key=float)
    data = next(iter(study["parts"])).split("_")[0]
    return _alike(study, f"{data}_vgg11_{widths[-1]} ") - _alike(study, f"{data}_vgg11_{widths[0]} ")


def _pruned(study: Study) -> float:
    mean = {
        kind: np.mean([np.mean(p["val/accuracy"][-3:]) for n, p in study["parts"].items() if n.startswith(kind)])
        for kind in ("pruned", "narrow")
    }
    return float(mean["pruned"] - mean["narrow"])
