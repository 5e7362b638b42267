"""The claims of Shenk et al., *Spectral Analysis of Latent Representations*."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from paper.figures.grid import DEPTHS
from paper.figures.records import Record, like_the_paper
from paper.settings import CAT_DOG, PHOTOS, UNBALANCED, Settings
from paper.studies.bench import family
from paper.worth.claims import Claim, average, correlation, matched, of_runs
from paper.worth.statistics import NOTHING, Estimate, estimate, mean, spearman

Speaks = Callable[[Settings], bool]

KNEE = 0.45
PAPER = "Shenk et al."


def _dense(settings: Settings) -> bool:
    return settings.model == "mlp" and like_the_paper(settings)


def _grid(settings: Settings) -> bool:
    return settings.model in DEPTHS and settings.data in (PHOTOS, CAT_DOG) and like_the_paper(settings)


def _on(data: str, of: Speaks) -> Speaks:
    return lambda settings: of(settings) and settings.data == data


def _either(*data: str) -> Speaks:
    return lambda settings: like_the_paper(settings) and settings.data in data and settings.model in (*DEPTHS, "mlp")


def _coder(settings: Settings) -> bool:
    return settings.model == "autoencoder"


def _hidden(run: Record) -> float:
    return float(run.profile()[-1, run.inner.index("network.hidden")])


def _bottleneck(run: Record, statistic: str = "saturation") -> float:
    return float(run.numbers["train"][statistic]["network.bottleneck"][-1])


def _course(key: str):
    """Rank correlation, over the epochs of a run, of continuous average saturation with what was logged."""

    def value(run: Record) -> float:
        return spearman(run.profile(statistic="continuous_saturation").mean(1), run.over_epochs(key))

    return value


def _settles_before(run: Record) -> float:
    """Epochs by which the profile is within a twentieth of its way from its end before the training loss is."""
    saturation = run.profile(statistic="continuous_saturation").mean(1)
    return float(_arrival(run.over_epochs("train/loss")) - _arrival(saturation))


def _arrival(series: np.ndarray) -> int:
    end, way = series[-3:].mean(), np.ptp(series)
    away = np.abs(series - end) > way / 20
    return int(away.nonzero()[0].max() + 1) if away.any() else 0


def _after_overfitting(run: Record) -> float | None:
    """Correlation of saturation and validation loss before the loss's minimum, less that behind it."""
    loss, saturation = run.over_epochs("val/loss"), run.profile(statistic="continuous_saturation").mean(1)
    least = int(loss.argmin())
    if least < 4 or len(loss) - least < 4 or loss[-3:].mean() < 1.02 * loss[least]:
        return None
    return abs(spearman(saturation[: least + 1], loss[: least + 1])) - abs(spearman(saturation[least:], loss[least:]))


def _knee(runs: Sequence[Record]) -> Estimate:
    """Slope of accuracy over average saturation below the knee, less that above it: the fall is steeper above."""
    points = [(run.average, run.accuracy) for run in runs]
    below, above = [p for p in points if p[0] <= KNEE], [p for p in points if p[0] > KNEE]
    if min(len(below), len(above)) < 4:
        return NOTHING

    def slopes(rows: np.ndarray) -> float:
        parts = rows[rows[:, 0] <= KNEE], rows[rows[:, 0] > KNEE]
        if any(len(part) < 3 or np.ptp(part[:, 0]) == 0 for part in parts):
            return float("nan")
        low, high = (np.polyfit(part[:, 0], part[:, 1], 1)[0] for part in parts)
        return float(low - high)

    return estimate(points, [family(run.settings) for run in runs], slopes)


def _difference(one: str, other: str):
    def number(runs: Sequence[Record]) -> Estimate:
        pairs = list(matched(runs, one, other, lambda run: run.average))
        return mean([a for a, _ in pairs], [b for _, b in pairs]) if pairs else NOTHING

    return number


def _width_or_depth(runs: Sequence[Record]) -> Estimate:
    """How much more accuracy's rank goes with width than with depth."""
    rows = [(run.settings.width, int(run.settings.model[3:]), run.average) for run in runs]
    return estimate(
        rows,
        [family(run.settings) for run in runs],
        lambda r: abs(spearman(r[:, 0], r[:, 2])) - abs(spearman(r[:, 1], r[:, 2])),
    )


def _tail(run: Record) -> float:
    profile = run.profile(statistic="continuous_saturation")[-1]
    third = max(1, len(profile) // 3)
    return float(profile[:third].mean() - profile[-third:].mean())


def _kept(run: Record) -> float | None:
    projection = run.numbers["measured"].get("projection")
    return projection["0.99"]["accuracy"] - projection["whole"]["accuracy"] if projection else None


def claims() -> list[Claim]:
    """Return the claims in the order of the paper."""
    accuracy = lambda run: run.accuracy  # noqa: E731
    return [
        of_runs(
            f"{PAPER}, 3.2, figure 2a",
            "The intrinsic dimension of a bottleneck grows with its width.",
            "rank correlation of width and directions",
            "photos_autoencoder*",
            _coder,
            correlation(lambda run: run.settings.width, lambda run: _bottleneck(run) * run.settings.width),
        ),
        of_runs(
            f"{PAPER}, 3.2, figure 2b",
            "Wider bottlenecks are less saturated.",
            "rank correlation of width and saturation, turned",
            "photos_autoencoder*",
            _coder,
            correlation(lambda run: run.settings.width, _bottleneck, sign=-1),
        ),
        of_runs(
            f"{PAPER}, 3.2, figure 3",
            "While an auto-encoder learns, saturation rises as the validation loss falls.",
            "mean over runs of minus the rank correlation over epochs",
            "photos_autoencoder*",
            _coder,
            average(lambda run: -_course("val/loss")(run)),
        ),
        of_runs(
            f"{PAPER}, 3.3, figure 4",
            "While a dense network learns, saturation and loss fall together.",
            "mean over runs of the rank correlation of average saturation and training loss over epochs",
            "*_mlp_*",
            _dense,
            average(_course("train/loss")),
        ),
        *(
            of_runs(
                f"{PAPER}, 3.3, figures 5 and 8 ({data})",
                "Of dense networks, the less saturated do better.",
                "rank correlation of the hidden layer's saturation and test accuracy, turned",
                f"{data}_mlp_*",
                _on(data, _dense),
                correlation(_hidden, accuracy, sign=-1),
            )
            for data in (PHOTOS, CAT_DOG)
        ),
        of_runs(
            f"{PAPER}, 3.3 and figure 10",
            "The same network is more saturated on the harder problem.",
            "average saturation on CIFAR-10 less that on cat against dog",
            "*",
            _either(PHOTOS, CAT_DOG),
            _difference(PHOTOS, CAT_DOG),
        ),
        of_runs(
            f"{PAPER}, 3.3, figure 6",
            "Saturation goes with the validation loss until the network overfits, and then no longer.",
            "strength of the rank correlation before the loss's minimum less that behind it, runs that overfit",
            "photos_mlp_*",
            _on(PHOTOS, _dense),
            average(_after_overfitting),
        ),
        of_runs(
            f"{PAPER}, 3.3, figure 7",
            "Saturation settles before the training loss.",
            "epochs by which the profile is within 5 % of its way from its end before the loss is",
            "*",
            _either(PHOTOS, CAT_DOG),
            average(_settles_before),
        ),
        *(
            of_runs(
                f"{PAPER}, 3.4, figure 9 ({data})",
                "Of VGG networks, the less saturated do better.",
                "rank correlation of average saturation and test accuracy, turned",
                f"{data}_vgg*",
                _on(data, _grid),
                correlation(lambda run: run.average, accuracy, sign=-1),
            )
            for data in (PHOTOS, CAT_DOG)
        ),
        of_runs(
            f"{PAPER}, 3.4",
            "On the harder problem accuracy falls faster beyond 45 % of average saturation.",
            "slope of accuracy over saturation below 45 % less that above",
            "photos_vgg*",
            _on(PHOTOS, _grid),
            _knee,
        ),
        of_runs(
            f"{PAPER}, 3.4, figure 9",
            "Width moves saturation more than depth does.",
            "strength of the rank correlation with width less that with depth",
            "photos_vgg*",
            _on(PHOTOS, _grid),
            _width_or_depth,
        ),
        of_runs(
            f"{PAPER}, figure 13",
            "Unbalanced classes leave saturation as it is (within 0.02).",
            "0.02 less the difference of average saturation",
            "*_vgg11_*",
            lambda s: s.model == "vgg11" and s.data in (PHOTOS, UNBALANCED) and like_the_paper(s),
            _unbalanced,
        ),
        of_runs(
            f"{PAPER}, 3.5, figures 1, 10, 15, 16",
            "Profiles start high and end in a tail of low saturation.",
            "saturation of the first third of layers less that of the last third",
            "*_vgg*",
            _grid,
            average(_tail),
        ),
        of_runs(
            f"{PAPER}, 3.5, figure 11",
            "Networks that are too narrow show it from the first epoch.",
            "rank correlation of width and average saturation after one epoch, turned",
            "*_vgg*",
            _grid,
            correlation(lambda run: run.settings.width, lambda run: float(run.profile()[0].mean()), sign=-1),
        ),
        of_runs(
            f"{PAPER}, 2",
            "The directions of 99 % of the variance carry the task (within 0.01 of accuracy).",
            "change of test accuracy where every layer keeps only these",
            "*",
            lambda s: s.task == "classify" and like_the_paper(s),
            average(_kept),
            least=-0.01,
        ),
    ]


def _unbalanced(runs: Sequence[Record]) -> Estimate:
    pairs = list(matched(runs, UNBALANCED, PHOTOS, lambda run: run.average))
    return mean([0.02 - abs(a) for a, _ in pairs], [b for _, b in pairs]) if pairs else NOTHING
