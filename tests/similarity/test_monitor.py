"""SimilarityMonitor: what it keeps and logs, that it disturbs nothing, resumes, and can be stopped on."""

import math

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_saturation import SaturationStopping, SimilarityMonitor
from lightning_saturation.functional import svcca

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:You defined a .validation_step"
)


class Net(LightningModule):
    def __init__(self, rate=0.1):
        super().__init__()
        torch.manual_seed(0)
        self.rate = rate
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)
        )

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch, index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def loader(shuffle=True, samples=128):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 4, generator=generator)
    data = TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long())
    return DataLoader(data, batch_size=16, shuffle=shuffle, generator=generator if shuffle else None)


def trainer(tmp_path, *callbacks, epochs=4, **options):
    options = {"logger": False, "enable_checkpointing": False, **options}
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        log_every_n_steps=1,
        **options,
    )


def fit(tmp_path, monitor=None, *, epochs=4, validate=True, seed=3, **options):
    model = Net()
    torch.manual_seed(seed)
    run = trainer(tmp_path, *([monitor] if monitor else []), epochs=epochs, **options)
    run.fit(model, loader(), loader(shuffle=False) if validate else None)
    return model, run


@pytest.mark.parametrize("validate", [True, False])
def test_panes_series_and_keys(tmp_path, validate):
    monitor = SimilarityMonitor(samples=100)
    _, run = fit(tmp_path, monitor, validate=validate)
    dynamics = monitor.dynamics
    assert list(dynamics.panes) == [0.0, 0.35, 0.75, 1.0]
    layers = ("layers.0", "layers.4", "layers.6")
    for share, matrix in dynamics.panes.items():
        assert matrix.rows == matrix.columns == layers
        assert matrix.samples == 100
        # Eight features of four inputs are one affine map of them or another, which CCA cannot tell apart.
        assert matrix["layers.0", "layers.0"] == pytest.approx(1.0)
        assert (matrix["layers.4", "layers.4"] > 1 - 1e-9) == (share == 1.0)
    assert [len(values) for values in monitor.series.values()] == [4, 4, 4]
    assert {f"similarity/layers/{name}" for name in layers} < set(run.callback_metrics)
    last = [values[-1] for values in monitor.series.values()]
    assert float(run.callback_metrics["similarity/average"]) == pytest.approx(sum(last) / 3, abs=1e-6)
    assert float(run.callback_metrics["similarity/train/change"]) == pytest.approx(1 - sum(last) / 3, abs=1e-6)


def test_the_first_pane_is_the_untrained_network(tmp_path):
    probes = torch.randn(60, 4, generator=torch.Generator().manual_seed(5))
    monitor = SimilarityMonitor(probes=probes)
    model, _ = fit(tmp_path, monitor)
    untrained, model = Net().eval(), model.eval()
    with torch.no_grad():
        expected = svcca(untrained.layers[:5](probes), model.layers(probes))
    assert monitor.dynamics.panes[0.0]["layers.4", "layers.6"] == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("validate", [True, False])
def test_training_is_not_disturbed(tmp_path, validate):
    plain, _ = fit(tmp_path, validate=validate)
    watched, _ = fit(tmp_path, SimilarityMonitor(samples=50), validate=validate)
    for (name, left), right in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(left, right), name
    assert not any(module._forward_hooks for module in watched.modules())


def test_resuming_continues(tmp_path):
    whole = SimilarityMonitor(samples=64)
    fit(tmp_path, whole)
    first = SimilarityMonitor(samples=64)
    model = Net()
    torch.manual_seed(3)
    run = trainer(tmp_path, first, epochs=2)
    train = loader()
    run.fit(model, train, loader(shuffle=False))
    run.save_checkpoint(tmp_path / "half.ckpt")
    second = SimilarityMonitor(samples=64)
    again = trainer(tmp_path, second)
    again.fit(Net(), train, loader(shuffle=False), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert [len(values) for values in second.series.values()] == [4, 4, 4]
    assert second.epochs == [0, 1, 2, 3]
    name = "layers.4"
    assert second.series[name][:2] == first.series[name]
    torch.testing.assert_close(second.snapshots[0.0][name], whole.snapshots[0.0][name])
    assert second.dynamics.panes[1.0][name, name] == pytest.approx(1.0)


def test_a_network_that_stands_still_is_stopped_on(tmp_path):
    model = Net(rate=0.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 0.0
    stopper = SaturationStopping(name="similarity", window=3, patience=2, tolerance=0.01)
    run = trainer(tmp_path, SimilarityMonitor(samples=64), stopper, epochs=20)
    run.fit(model, loader(), loader(shuffle=False))
    assert run.current_epoch == 5
    assert float(run.callback_metrics["similarity/train/change"]) < 1e-6


def test_a_network_that_moves_is_not(tmp_path):
    stopper = SaturationStopping(name="similarity", window=3, patience=1, tolerance=1e-4)
    run = trainer(tmp_path, SimilarityMonitor(samples=64), stopper, epochs=6)
    run.fit(Net(rate=0.5), loader(), loader(shuffle=False))
    assert run.current_epoch == 6


@pytest.mark.usefixtures("small_pictures")
def test_loggers_get_scalars_and_a_failing_picture_ends_nothing(tmp_path):
    logger = CSVLogger(tmp_path)
    fit(tmp_path, SimilarityMonitor(samples=64), logger=logger, epochs=2)
    logger.save()
    header = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()[0].split(",")
    assert "similarity/layers/layers.0" in header
    assert "similarity/train/change" in header


def test_an_interrupted_run_shows_what_there_is(tmp_path):
    class Failing(Net):
        def on_train_epoch_end(self):
            if self.current_epoch == 2:
                raise RuntimeError("interrupted")

    monitor = SimilarityMonitor(samples=64)
    with pytest.raises(RuntimeError, match="interrupted"):
        trainer(tmp_path, monitor).fit(Failing(), loader(), loader(shuffle=False))
    assert 0.0 in monitor.dynamics.panes
    assert not math.isnan(monitor.dynamics.panes[0.0]["layers.0", "layers.0"])


def test_two_ranks_share_probes_and_values(tmp_path):
    monitor = SimilarityMonitor(samples=64)
    run = trainer(tmp_path, monitor, epochs=2, devices=2, strategy="ddp_fork")
    run.fit(Net(), loader(), loader(shuffle=False))
    assert 0 < float(run.callback_metrics["similarity/layers/layers.0"]) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "procrustes"}, "'debiased_cka'.*, got 'procrustes'"),
        ({"method": "cosine"}, "`method` to be one of"),
        ({"pooling": "positions"}, "`pooling` to be one of"),
        ({"at": (0, 1.5)}, r"`at` in \[0, 1\]"),
        ({"samples": 1}, "`samples` of at least 2"),
        ({"every_n_epochs": 0}, "`every_n_epochs` of at least 1"),
        ({"delta": 0.0}, "`delta`"),
        ({"name": ""}, "`name`"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SimilarityMonitor(**options)


def test_unknown_layers_are_told_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"nothing matches 'layers\.9'"):
        fit(tmp_path, SimilarityMonitor(layers=["layers.9"]))


def test_a_layer_called_average_keeps_its_key(tmp_path):
    class Odd(Net):
        def __init__(self):
            super().__init__()
            self.average = nn.Linear(2, 2)

        def forward(self, x):
            return self.average(super().forward(x))

    run = trainer(tmp_path, SimilarityMonitor(samples=64), epochs=1)
    run.fit(Odd(), loader(), loader(shuffle=False))
    assert {"similarity/layers/average", "similarity/average"} < set(run.callback_metrics)
