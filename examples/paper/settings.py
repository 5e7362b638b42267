"""What one run is: network, data, training, and how much of it is measured at the end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

PHOTOS, CAT_DOG, UNBALANCED, RANDOM_LABELS, TEXT = "photos", "cat-dog", "unbalanced", "random-labels", "text"
"""All classes; cat against dog; classes of 5 to 15 % of the images; labels drawn at random; characters of a text."""

DATA = (PHOTOS, CAT_DOG, UNBALANCED, RANDOM_LABELS, TEXT)
SCHEDULES = ("constant", "step", "cosine")


@dataclass(frozen=True)
class Settings:
    """One run; the defaults are the training of Shenk et al., section 3.1.

    ``width`` is the factor on a network's features; of the auto-encoder it is the number of units of its bottleneck,
    of the dense network that of its hidden layer, of the transformer the features of a token. ``schedule`` ``"step"``
    divides the learning rate by ten after 60 % of the epochs. ``limit`` keeps so many training images, an equal share
    of each class. ``probes`` training images are measured at the end, ``samples`` of them by TwoNN,
    and spectra of operators take at most ``spectrum_seconds``. ``widths`` gives every layer but the output a number of
    features, in place of ``width``; it is for studies, whose files have other names.
    """

    model: str = "vgg11"
    width: float = 0.25
    data: str = PHOTOS
    seed: int = 0
    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    augment: bool = True
    limit: int | None = None
    probes: int = 10_000
    samples: int = 2000
    spectrum_seconds: float = 120.0
    widths: tuple[int, ...] | None = None

    @property
    def task(self) -> str:
        """What the network is asked for: a class, its own input, or the next character."""
        return {"autoencoder": "reconstruct", "transformer": "predict"}.get(self.model, "classify")

    @property
    def name(self) -> str:
        """A name for files: the network and the data, then whatever is not the paper's."""
        usual = Settings(self.model, self.width, self.data, self.seed)
        marks = {"epochs": "e", "batch_size": "b", "learning_rate": "lr", "weight_decay": "wd", "limit": "n"}
        parts = [self.data, self.model, f"{self.width:g}"]
        parts += [f"{mark}{getattr(self, key):g}" for key, mark in marks.items() if self._differs(usual, key)]
        parts += [str(getattr(self, key)) for key in ("optimizer", "schedule") if self._differs(usual, key)]
        parts += ["plain"] if usual.augment and not self.augment and self.task != "predict" else []
        return "_".join([*parts, f"s{self.seed}"])

    def _differs(self, usual: Settings, key: str) -> bool:
        return bool(getattr(self, key) != getattr(usual, key))

    def to_record(self) -> dict[str, Any]:
        """Return the settings as plain data, with the name under which they go."""
        return {"name": self.name, "task": self.task, **asdict(self)}


def small(settings: Settings) -> Settings:
    """Return ``settings`` for a run of a second, which shows that all parts work together and nothing else."""
    narrow = min(settings.width, 1 / 16 if settings.model == "resnet18" else settings.width)
    little = {"batch_size": 16, "limit": 60, "probes": 60, "samples": 40, "spectrum_seconds": 0.1}
    return replace(settings, epochs=min(settings.epochs, 2), width=narrow, **little)
