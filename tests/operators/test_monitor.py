"""SpectrumMonitor in a Trainer: when it measures, what it logs, what it leaves, what a resumed run keeps."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_saturation import SpectrumMonitor, measure_spectrum

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]
SMALL = {"spikes": 4, "bins": 30, "progress": False}


class Small(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3, 2)
        self.recurrent = nn.LSTM(2, 2)

    def training_step(self, batch, batch_idx):
        return self.head(self.conv(batch[0]).mean((2, 3))).square().mean()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        return DataLoader(TensorDataset(torch.randn(8, 1, 5, 5, generator=generator)), batch_size=4)


def trainer(folder, *callbacks, epochs=3, **options):
    options = {"logger": False, "enable_checkpointing": False, "devices": 1, **options}
    return Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        log_every_n_steps=1,
        **options,
    )


def test_it_measures_before_training_every_n_epochs_and_at_the_end(tmp_path):
    monitor, model = SpectrumMonitor(every_n_epochs=2, **SMALL), Small()
    weight = model.conv.weight.detach().clone()
    runs = trainer(tmp_path, monitor, epochs=5)
    runs.fit(model)
    assert [(report.epoch, report.step) for report in monitor.reports] == [(0, 0), (2, 4), (4, 8), (5, 10)]
    untrained = nn.Conv2d(1, 3, 3, padding=1)
    untrained.weight = nn.Parameter(weight)
    expected = measure_spectrum(untrained, torch.zeros(1, 1, 5, 5), progress=False, spikes=4, bins=30)
    assert torch.equal(monitor.reports[0].layers["conv"].counts, expected.layers["Conv2d"].counts)
    trained = measure_spectrum(model.conv, torch.zeros(1, 1, 5, 5), progress=False, spikes=4, bins=30)
    assert torch.equal(monitor.reports[-1].layers["conv"].counts, trained.layers["Conv2d"].counts)
    assert list(monitor.reports[0].layers) == ["conv", "head"]
    assert not any(module._forward_pre_hooks for module in model.modules())
    logged = runs.callback_metrics["spectrum/largest_eigenvalue/layers/conv"]
    assert float(logged) == pytest.approx(trained.layers["Conv2d"].largest, rel=1e-6)
    assert monitor.reports[1].learning_rates != monitor.reports[0].learning_rates


def test_training_is_the_same_with_and_without(tmp_path):
    plain, watched = Small(), Small()
    torch.manual_seed(7)
    trainer(tmp_path).fit(plain)
    torch.manual_seed(7)
    trainer(tmp_path, SpectrumMonitor(**SMALL)).fit(watched)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))


@pytest.mark.usefixtures("small_pictures")
def test_scalars_reach_loggers_and_pictures_those_that_take_them(tmp_path):
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from lightning.pytorch.loggers import TensorBoardLogger

    loggers = [CSVLogger(tmp_path, "csv"), TensorBoardLogger(tmp_path, "tb")]
    trainer(tmp_path, SpectrumMonitor(**SMALL), logger=loggers).fit(Small())
    text = next(tmp_path.glob("csv/*/metrics.csv")).read_text()
    assert "spectrum/stable_rank/layers/head" in text.splitlines()[0]
    events = tensorboard.EventAccumulator(str(next(tmp_path.glob("tb/*"))))
    events.Reload()
    assert set(events.Tags()["images"]) == {
        "spectrum/histograms",
        "spectrum/norms",
        "spectrum/evolution/conv",
        "spectrum/evolution/head",
    }
    assert len(events.Scalars("spectrum/largest_eigenvalue/layers/conv")) == 4


def test_a_resumed_run_continues_its_history_and_measures_no_start(tmp_path):
    first = SpectrumMonitor(**SMALL)
    run = trainer(tmp_path, first, epochs=2)
    run.fit(Small())
    run.save_checkpoint(tmp_path / "it.ckpt")
    torch.load(tmp_path / "it.ckpt", weights_only=True)
    second = SpectrumMonitor(**{**SMALL, "bins": 10})
    trainer(tmp_path, second, epochs=4).fit(Small(), ckpt_path=tmp_path / "it.ckpt")
    assert [report.epoch for report in second.reports] == [0, 1, 2, 3, 4]
    assert [len(report.layers["conv"].counts) for report in second.reports] == [30, 30, 30, 10, 10]
    assert torch.equal(second.reports[1].layers["conv"].counts, first.reports[1].layers["conv"].counts)


def test_an_exception_leaves_no_hook(tmp_path):
    class Failing(Small):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            raise RuntimeError("stop here")

    model = Failing()
    with pytest.raises(RuntimeError, match="stop here"):
        trainer(tmp_path, SpectrumMonitor(**SMALL)).fit(model)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_layers_without_a_spectrum_are_named_once(tmp_path):
    monitor = SpectrumMonitor(layers=["conv", "recurrent"], **SMALL)
    with pytest.warns(UserWarning, match="recurrent: LSTM is no linear operator"):
        trainer(tmp_path, monitor, epochs=1).fit(Small())
    assert list(monitor.reports[-1].missing) == ["recurrent"]
    with pytest.warns(UserWarning, match="ut of time"):
        trainer(tmp_path, SpectrumMonitor(seconds=1e-9, **SMALL), epochs=1).fit(Small())


def test_ranks_have_identical_reports(tmp_path):
    class Comparing(SpectrumMonitor):
        def on_train_end(self, trainer, pl_module):
            super().on_train_end(trainer, pl_module)
            mine = torch.cat([h.counts for report in self.reports for h in report.layers.values()])
            theirs = [torch.zeros(3 * 2 * 30).double() for _ in range(2)]
            torch.distributed.all_gather(theirs, mine)
            assert theirs[0].sum() > 0
            assert torch.equal(theirs[0], theirs[1])

    both = trainer(tmp_path, Comparing(**SMALL), epochs=2, devices=2, strategy="ddp_fork")
    model = Small()
    del model.recurrent  # DDP refuses parameters that the loss does not use
    both.fit(model)
    assert "spectrum/largest_eigenvalue/layers/conv" in both.callback_metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_epochs": 0}, "`every_n_epochs` of at least 1"),
        ({"seconds": 0.0}, "`seconds` > 0"),
        ({"degree": 0}, "`degree`"),
        ({"name": ""}, "`name`"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SpectrumMonitor(**options)


def test_an_unknown_layer_is_refused_when_fitting_starts(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'conv'"):
        trainer(tmp_path, SpectrumMonitor(layers=["conf"])).fit(Small())
