"""Padding is not data: what is left out of which layers, and what a user is told."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_saturation import SaturationMonitor, compare_representations, measure_dimension, measure_saturation
from lightning_saturation.capture.masks import PaddingWarning, pool_masked
from lightning_saturation.capture.represent import represent
from lightning_saturation.capture.select import CaptureOptions

SIZES = (1, 5, 3, 2, 4, 5, 1, 2)
POOLINGS = ("mean", "max", "median", "last", "positions")


class Classifier(nn.Module):
    """Tokens, the same in rows of their own, and a head on the first of them."""

    def __init__(self):
        super().__init__()
        self.words, self.wide = nn.Embedding(30, 6), nn.Linear(6, 9)
        self.flat, self.along, self.head = nn.Linear(9, 7), nn.Conv1d(7, 5, 3, padding=1), nn.Linear(5, 2)

    def forward(self, input_ids, attention_mask=None):
        h = self.wide(self.words(input_ids))
        h = self.flat(h.flatten(0, 1)).view(*h.shape[:2], -1)
        return self.head(self.along(h.transpose(1, 2))[:, :, 0])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Classifier().eval()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    sizes = torch.tensor(SIZES)
    mask = (torch.arange(5) < sizes[:, None]).long()
    ids = [torch.randint(1, 30, (8, 5), generator=generator) * mask for _ in range(6)]
    return [{"input_ids": each, "attention_mask": mask} for each in ids]


def sequences(model, batches, layer):
    """What the layer put out for each sample, without its padding (positions, features), by a loop over samples."""
    found, last = [], {}
    for name in ("wide", "flat", "along"):
        getattr(model, name).register_forward_hook(lambda _, __, out, name=name: last.__setitem__(name, out))
    for batch in batches:
        with torch.no_grad():
            model(**batch)
        out = last[layer]
        out = out.view(8, 5, -1) if layer == "flat" else out.transpose(1, 2) if layer == "along" else out
        found += [out[i, :size].double().numpy() for i, size in enumerate(SIZES)]
    return found


def reduced(sequence, pooling):
    if pooling == "median":
        return np.sort(sequence, axis=0)[(len(sequence) - 1) // 2]  # the lower of two
    return {"mean": sequence.mean(0), "max": sequence.max(0), "last": sequence[-1]}[pooling]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("mask", ["attention_mask", lambda batch: batch["input_ids"] > 0], ids=["key", "function"])
def test_only_tokens_count(model, batches, pooling, mask):
    report = measure_saturation(
        model, batches, mask=mask, pooling=pooling, max_samples=None, output_layers=(), progress=False
    )
    for layer in ("wide", "flat", "along"):
        kept = sequences(model, batches, layer)
        # Tokens in rows of their own are rows of their own under every pooling.
        each = pooling == "positions" or layer == "flat"
        rows = np.concatenate(kept) if each else np.stack([reduced(sequence, pooling) for sequence in kept])
        assert report.layers[layer].samples == len(rows)
        expected = np.linalg.eigvalsh(np.cov(rows.T))[::-1].clip(0)
        np.testing.assert_allclose(report.layers[layer].eigenvalues, expected, rtol=1e-4, atol=1e-8)
    assert report.masked == ("wide", "flat", "along")  # the head has no positions
    assert report.layers["head"].samples == 48


def test_padding_on_the_left_and_samples_of_padding_alone():
    rows = torch.arange(12.0).view(3, 2, 2)
    mask = torch.tensor([[False, True], [True, False], [False, False]])
    assert pool_masked(rows, mask, "last")[:2].tolist() == [[2, 3], [4, 5]]
    for pooling in ("mean", "max", "median", "last"):
        assert pool_masked(rows, mask, pooling).isnan().any(1).tolist() == [False, False, True]
    assert pool_masked(rows, mask, "positions").tolist() == [[2, 3], [4, 5]]
    holes = rows.masked_fill(~mask.unsqueeze(2), torch.nan)
    for pooling in ("mean", "max", "median", "last"):
        assert pool_masked(holes, mask, pooling).isnan().any(1).tolist() == [False, False, True]
    assert pool_masked(holes.masked_fill(rows == 2, torch.nan), mask, "median")[0].isnan().tolist() == [True, False]


def test_half_precision_is_averaged_in_single():
    rows = torch.full((1, 2000, 1), 0.1, dtype=torch.float16)
    assert pool_masked(rows, torch.ones(1, 2000, dtype=torch.bool), "mean").item() == rows[0, 0, 0].float().item()


def test_padding_that_nobody_named_is_warned_about_once(model, batches):
    with pytest.warns(UserWarning, match="`mask='attention_mask'` leaves it out") as caught:
        measure_saturation(model, batches, progress=False)
    assert len(caught) == 1
    full = [{**batch, "attention_mask": torch.ones(8, 5)} for batch in batches]
    measure_saturation(model, full, progress=False)  # warnings are errors here
    with pytest.warns(UserWarning, match="hold padding"):
        PaddingWarning(None).look((batches[0], torch.zeros(8)))
    PaddingWarning("input_ids").look(batches[0])


def test_the_same_in_other_instruments(model, batches):
    with pytest.warns(UserWarning, match=r"\['flat'\] do not put out one row for each"):
        matrix = compare_representations(model, model, batches, mask="attention_mask", method="cka", progress=False)
    assert matrix.rows == ("wide", "along", "head")
    dimension = measure_dimension(model, batches, mask="attention_mask", pooling="mean", samples=48, progress=False)
    means = np.stack([sequence.mean(0) for sequence in sequences(model, batches, "wide")])
    variance = np.linalg.eigvalsh(np.cov(means.T))[::-1]
    wanted = int(np.searchsorted(np.cumsum(variance) / variance.sum(), 0.9)) + 1
    assert dimension.layers["wide"].pca == wanted


def test_probes_of_a_similarity_monitor_are_pooled_without_padding(model, batches):
    with pytest.warns(UserWarning, match=r"\['flat'\] do not put out one row for each of the 48 samples"):
        rows = represent(model, batches, CaptureOptions(mask="attention_mask"), forward=lambda batch: model(**batch))
    means = np.stack([sequence.mean(0) for sequence in sequences(model, batches, "wide")])
    np.testing.assert_allclose(rows["wide"].numpy(), means, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "said"),
    [("input_mask", "got None for 'input_mask'"), (lambda batch: batch["input_ids"][0], r"\(samples, positions\)")],
)
def test_a_mask_that_is_none_is_refused(model, batches, mask, said):
    with pytest.raises(ValueError, match=said):
        measure_saturation(model, batches, mask=mask, progress=False)


def test_whole_representations_have_no_mask():
    with pytest.raises(ValueError, match="other than 'flatten' with a `mask`"):
        SaturationMonitor(pooling="flatten", mask="attention_mask")


def test_forward_runs_models_that_take_more_than_one_tensor():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 5), nn.Linear(4, 5)

        def forward(self, x, y, *, scale):
            return scale * (self.a(x) + self.b(y))

    torch.manual_seed(0)
    model, pairs = Pair(), [(torch.randn(20, 3), torch.randn(20, 4)) for _ in range(3)]

    def forward(model, batch):
        return model(*batch, scale=2.0)

    report = measure_saturation(model, pairs, forward=forward, output_layers=(), progress=False)
    expected = {"a": np.concatenate([x for x, _ in pairs]), "b": np.concatenate([y for _, y in pairs])}
    for name, inputs in expected.items():
        rows = inputs @ getattr(model, name).weight.detach().numpy().T
        spectrum = np.linalg.eigvalsh(np.cov(rows.T))[::-1].clip(0)
        np.testing.assert_allclose(report.layers[name].eigenvalues, spectrum, rtol=1e-4, atol=1e-8)
    assert compare_representations(model, model, pairs, forward=forward, progress=False).rows == ("a", "b")
    assert measure_dimension(model, pairs, forward=forward, progress=False).layers["b"].features == 5
