"""Train a small network and see how much of each layer's feature space the data fills.

    python examples/quickstart.py                                  scikit-learn's digits, well under a minute
    python examples/quickstart.py --data photos.zip --model vgg11 --width 0.25

Leaves saturation.png and an offline W&B run in the current folder and says where.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from common import NETWORKS, Classifier, ProgressBar, images, network, quiet, wandb_logger
from lightning import Trainer, seed_everything
from lightning.pytorch.loggers import WandbLogger

from lightning_saturation import SaturationMonitor, replay


def main() -> int:
    options = _arguments()
    quiet()
    try:
        data = images(options.data, limit=options.limit, size=options.size)
        seed_everything(0, verbose=False)
        model = network(options.model, data.shape, len(data.classes), width=options.width)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    if min(data.shape[1:]) < 16:
        torch.set_num_threads(1)  # on images this small a second thread costs more than it brings
    monitor = SaturationMonitor()
    logger = wandb_logger("saturation-quickstart", options.out, model=options.model, width=options.width)
    trainer = Trainer(
        max_epochs=options.epochs,
        callbacks=[monitor, ProgressBar()],
        logger=logger,
        accelerator="auto" if torch.cuda.device_count() >= options.devices else "cpu",
        devices=options.devices,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    classifier = Classifier(model, len(data.classes))
    start = time.perf_counter()
    trainer.fit(classifier, data.train_loader(options.batch_size), data.test_loader())
    if trainer.is_global_zero:  # with --devices 2 every process comes here, with the same numbers
        accuracy = float(trainer.callback_metrics["val/accuracy"])
        print(f"\n{options.model} on {data}: accuracy {accuracy:.3f} after {time.perf_counter() - start:.0f} s")
        _show(monitor, logger, options.out)
    return 0


def _show(monitor: SaturationMonitor, logger: WandbLogger, out: Path) -> None:
    import wandb

    settled = replay(monitor.reports)
    when = "not yet: longer training may change it" if settled is None else f"since epoch {settled.epoch}"
    print(f"\n{monitor.diagnose().verdict} Settled: {when}.\n\n{monitor.report()}\n\n{monitor.diagnose()}\n")
    picture = out / "saturation.png"
    monitor.plot().savefig(picture, dpi=150)
    run = Path(logger.experiment.dir).parent
    wandb.finish()
    print(f"Picture:  {picture}")
    print(f"W&B run:  {run}")
    print(f"          wandb leet run {run}    (in this terminal)")
    print(f"          wandb sync {run}    (in the browser, with an account)")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder or zip of class/image files; without it scikit-learn's digits")
    parser.add_argument("--limit", type=int, help="use so many images in all")
    parser.add_argument("--size", type=int, help="side of the images in pixels (files: 32 unless told)")
    parser.add_argument("--model", default="cnn", choices=NETWORKS)
    parser.add_argument("--width", type=float, default=1.0, help="factor on every layer's features, such as 0.25")
    parser.add_argument("--epochs", type=_positive, default=10)
    parser.add_argument("--batch-size", type=_positive, default=64, help="per device")
    parser.add_argument("--devices", type=_positive, default=1, help="processes that share the data")
    parser.add_argument("--out", type=_folder, default=Path.cwd(), help="where picture and W&B run go")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _folder(text: str) -> Path:
    folder = Path(text).resolve()
    if folder.exists() and not folder.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, got the file {text!r}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
