"""Networks of PyTorch alone, each with one habit that real networks have."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tests.zoo.network import SAMPLES, Network, floats, tokens, unpacked


class Module(nn.Module):
    """A module whose parts are given by name."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def perceptron() -> Network:
    return Network(mlp(7, 9, 8, 4), floats(7))


def convolutions() -> Network:
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 8, 3, groups=1), nn.Flatten(), nn.Linear(128, 4)
    )
    return Network(model, floats(3, 8, 8))


def volumes() -> Network:
    return Network(nn.Sequential(nn.Conv3d(2, 4, 2), nn.Tanh(), nn.ConvTranspose3d(4, 3, 2)), floats(2, 4, 5, 4))


def time_series() -> Network:
    return Network(
        nn.Sequential(nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16), nn.Tanh(), nn.Conv1d(16, 5, 3)), floats(3, 20)
    )


def residual() -> Network:
    class Net(Module):
        def forward(self, x):
            h = self.stem(x)
            for block in (self.a, self.b):
                h = h + block(torch.relu(h))
            return self.head(h.mean((2, 3)))

    conv = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)]
    return Network(Net(stem=nn.Conv2d(3, 4, 3), a=conv[0], b=conv[1], head=nn.Linear(4, 3)), floats(3, 7, 7))


def unet() -> Network:
    class Net(Module):
        def forward(self, x):
            a = torch.tanh(self.down1(x))
            b = torch.tanh(self.down2(a))
            return self.out(torch.cat([a, self.up(b)], 1))

    parts = {"down1": nn.Conv2d(2, 4, 2, 2), "down2": nn.Conv2d(4, 6, 2, 2), "up": nn.ConvTranspose2d(6, 4, 2, 2)}
    return Network(Net(**parts, out=nn.Conv2d(8, 3, 1)), floats(2, 8, 8))


def reused_before_a_new_layer() -> Network:
    class Net(Module):
        def forward(self, x):
            h = x
            for block in self.blocks:
                h = torch.relu(self.time(x) + block(h))
            return self.head(h)

    blocks = nn.ModuleList([nn.Linear(5, 5) for _ in range(3)])
    return Network(Net(head=nn.Linear(5, 2), blocks=blocks, time=nn.Linear(5, 5)), floats(5))


def used_twice_around_another() -> Network:
    class Net(Module):
        def forward(self, x):
            return self.out(self.a(torch.tanh(self.b(self.a(x)))))

    return Network(Net(out=nn.Linear(5, 2), b=nn.Linear(5, 5), a=nn.Linear(5, 5)), floats(5))


def weights_tied() -> Network:
    class Net(Module):
        def forward(self, x):
            return self.decode(torch.tanh(self.encode(self.words(x).mean(1))))

    net = Net(words=nn.Embedding(50, 8), encode=nn.Linear(8, 8), decode=nn.Linear(8, 50, bias=False))
    net.decode.weight = net.words.weight
    return Network(net, tokens(6))


def encoder(*, first: bool, told: bool = True) -> Network:
    class Net(Module):
        def forward(self, x):
            h = self.inner(x if told else x.transpose(0, 1))
            return self.head(self.body(h))

    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=first)
    net = Net(
        inner=nn.Linear(7, 8), body=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), head=nn.Linear(8, 3)
    )
    samples_first = first or not told
    batches = floats(5, 7) if samples_first else [x.transpose(0, 1).contiguous() for x in floats(5, 7)]
    return Network(net, batches, axis=0 if samples_first else 1)


def transformer_batch_first() -> Network:
    return encoder(first=True)


def transformer_token_first() -> Network:
    return encoder(first=False)


def transformer_token_first_inside() -> Network:
    return encoder(first=False, told=False)


def sequence_to_sequence() -> Network:
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0)
    batches = [tuple(torch.randn(t, SAMPLES, 8, dtype=torch.float64) for t in (5, 4)) for _ in range(2)]
    return Network(model, batches, forward=unpacked, axis=1)


def recurrent(kind: type[nn.RNNBase], *, first: bool) -> Network:
    class Net(Module):
        def forward(self, x):
            return self.head(torch.tanh(self.mix(self.body(x)[0])))

    net = Net(body=kind(5, 6, 2, batch_first=first), mix=nn.Linear(6, 7), head=nn.Linear(7, 2))
    batches = floats(9, 5) if first else [x.transpose(0, 1).contiguous() for x in floats(9, 5)]
    return Network(net, batches, axis=0 if first else 1)


def lstm_batch_first() -> Network:
    return recurrent(nn.LSTM, first=True)


def gru_token_first() -> Network:
    return recurrent(nn.GRU, first=False)


def bidirectional() -> Network:
    class Net(Module):
        def forward(self, x):
            return self.head(self.body(x)[0][:, -1])

    return Network(Net(body=nn.LSTM(5, 4, bidirectional=True, batch_first=True), head=nn.Linear(8, 2)), floats(6, 5))


def cells_in_a_loop() -> Network:
    class Net(Module):
        def forward(self, x):
            h = x.new_zeros(len(x), 6)
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
            return self.head(h)

    return Network(Net(cell=nn.GRUCell(5, 6), head=nn.Linear(6, 2)), floats(4, 5))


def tokens_flattened() -> Network:
    class Net(Module):
        def forward(self, x):
            h = self.a(x)
            return self.c(torch.tanh(self.b(h.flatten(0, 1))).view_as(h))

    return Network(Net(a=nn.Linear(6, 5), b=nn.Linear(5, 5), c=nn.Linear(5, 3)), floats(4, 6))


def windows() -> Network:
    class Net(Module):
        def forward(self, x):
            h = self.patch(x).permute(0, 2, 3, 1)
            b, height, width, c = h.shape
            cut = h.view(b, height // 2, 2, width // 2, 2, c).transpose(2, 3).reshape(-1, 4, c)
            cut = self.inside(cut).view(b, height // 2, width // 2, 2, 2, c).transpose(2, 3)
            return self.head(cut.reshape(b, height, width, c).mean((1, 2)))

    return Network(Net(patch=nn.Conv2d(3, 5, 2, 2), inside=nn.Linear(5, 5), head=nn.Linear(5, 2)), floats(3, 8, 8))


def bias_of_positions() -> Network:
    class Net(Module):
        def forward(self, x):
            where = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype).unsqueeze(1)
            return self.head(torch.tanh(self.a(x) + self.bias2(torch.relu(self.bias1(where)))))

    parts = {"a": nn.Linear(6, 5), "bias1": nn.Linear(1, 7), "bias2": nn.Linear(7, 5), "head": nn.Linear(5, 3)}
    return Network(Net(**parts), floats(4, 6), remark="two layers see positions only")


def learned_queries() -> Network:
    class Net(Module):
        def __init__(self, **parts):
            super().__init__(**parts)
            self.queries = nn.Parameter(torch.randn(3, 8))

        def forward(self, x):
            keys = self.keys(x)
            queries = self.project(self.queries).expand(len(x), -1, -1)
            return self.head(self.attend(queries, keys, keys)[0])

    attend = nn.MultiheadAttention(8, 2, batch_first=True)
    return Network(
        Net(keys=nn.Linear(5, 8), project=nn.Linear(8, 8), attend=attend, head=nn.Linear(8, 3)), floats(7, 5)
    )


def actor_and_critic() -> Network:
    class Net(Module):
        def forward(self, x):
            h = self.body(x)
            return self.actor(h), self.critic(h)

    return Network(Net(actor=nn.Linear(9, 3), critic=nn.Linear(9, 1), body=mlp(4, 8, 9)), floats(4))


def actor_and_critic_apart() -> Network:
    class Net(Module):
        def forward(self, x):
            return self.actor(x), self.critic(x)

    return Network(Net(actor=mlp(4, 8, 3), critic=mlp(4, 7, 1)), floats(4))


def double_dqn() -> Network:
    class Net(Module):
        def forward(self, x):
            q = self.online(x)
            with torch.no_grad():
                return q - self.target(x).gather(1, q.argmax(1, keepdim=True))

    return Network(Net(online=mlp(4, 8, 3), target=mlp(4, 8, 3)), floats(4))


def gan() -> Network:
    class Net(Module):
        def forward(self, x):
            return self.disc(self.gen(x))

    return Network(Net(disc=mlp(6, 9, 1), gen=mlp(3, 8, 6)), floats(3))


def vae() -> Network:
    class Net(Module):
        def forward(self, x):
            h = torch.tanh(self.encode(x))
            mean, spread = self.mean(h), self.spread(h)
            return self.decode(mean + mean.new_tensor([0.3, -0.8, 1.1]) * spread.exp())

    parts = {"encode": nn.Linear(6, 8), "mean": nn.Linear(8, 3), "spread": nn.Linear(8, 3), "decode": nn.Linear(3, 6)}
    return Network(Net(**parts), floats(6))


def vq_vae() -> Network:
    class Net(Module):
        def forward(self, x):
            z = self.encode(x)
            code = self.codes.weight[torch.cdist(z, self.codes.weight).argmin(1)]
            return self.decode(z + (code - z).detach()), z

    return Network(
        Net(encode=nn.Linear(6, 3), codes=nn.Embedding(5, 3), decode=nn.Linear(3, 6)),
        floats(6),
        outputs=("decode",),
        remark="what the encoder puts out only chooses a code: no small change of it reaches the decoder",
    )


def siamese() -> Network:
    class Net(Module):
        def forward(self, a, b):
            return self.head((self.body(a) - self.body(b)).abs())

    batches = [tuple(floats(5)) for _ in range(2)]
    return Network(Net(head=nn.Linear(4, 1), body=mlp(5, 6, 4)), batches, forward=unpacked)


def mixture_of_experts() -> Network:
    class Net(Module):
        def forward(self, x):
            gate = self.gate(x).softmax(-1)
            mixed = torch.stack([expert(x) for expert in self.experts], -1)
            return self.head((mixed * gate.unsqueeze(-2)).sum(-1))

    experts = nn.ModuleList([nn.Linear(5, 6) for _ in range(3)])
    return Network(Net(gate=nn.Linear(5, 3), experts=experts, head=nn.Linear(6, 2)), floats(5))


def frozen_backbone() -> Network:
    class Net(Module):
        def forward(self, x):
            with torch.no_grad():
                h = self.body(x)
            return self.head(h)

    net = Net(body=mlp(5, 8, 6), head=nn.Linear(6, 2))
    net.body.requires_grad_(False)
    return Network(net, floats(5))


def checkpointed() -> Network:
    class Net(Module):
        def forward(self, x):
            return self.head(checkpoint(self.body, x, use_reentrant=False))

    return Network(Net(body=mlp(5, 8, 6), head=nn.Linear(6, 2)), floats(5))


def in_place() -> Network:
    class Net(Module):
        def forward(self, x):
            h = self.a(x)
            h /= 2
            h[:, 0] += self.b(x)[:, 0]
            return self.c(h)

    return Network(Net(c=nn.Linear(6, 2), b=nn.Linear(5, 6), a=nn.Linear(5, 6)), floats(5))


def weight_norm() -> Network:
    first = parametrizations.weight_norm(nn.Linear(5, 8))
    second = parametrizations.spectral_norm(nn.Conv1d(1, 4, 3))
    return Network(nn.Sequential(first, nn.Tanh(), nn.Unflatten(1, (1, 8)), second), floats(5))


def low_rank_adapters() -> Network:
    class Adapted(Module):
        def forward(self, x):
            return self.base(x) + self.up(self.down(x))

    def adapted(a, b):
        return Adapted(base=nn.Linear(a, b), down=nn.Linear(a, 2, bias=False), up=nn.Linear(2, b, bias=False))

    return Network(nn.Sequential(adapted(5, 8), nn.Tanh(), adapted(8, 3)), floats(5))


def images_of_several_scales() -> Network:
    class Net(Module):
        def forward(self, x):
            h = torch.tanh(self.stem(x))
            return [(self.classes(each), self.boxes(each)) for each in (h, nn.functional.avg_pool2d(h, 2))]

    net = Net(stem=nn.Conv2d(3, 5, 3, padding=1), classes=nn.Conv2d(5, 4, 1), boxes=nn.Conv2d(5, 4, 1))
    return Network(net, floats(3, 8, 8))


def mixer() -> Network:
    class Net(Module):
        def forward(self, x):
            h = self.patch(x).flatten(2)
            h = h + self.tokens(h)
            return self.head((h.transpose(1, 2) + self.channels(h.transpose(1, 2))).mean(1))

    parts = {"patch": nn.Conv2d(3, 5, 2, 2), "tokens": nn.Linear(16, 16), "channels": nn.Linear(5, 5)}
    return Network(Net(**parts, head=nn.Linear(5, 2)), floats(3, 8, 8))


def bilinear_and_dict() -> Network:
    class Net(Module):
        def forward(self, batch):
            return {"score": self.head(torch.tanh(self.pair(batch["a"], batch["b"])))}

    batches = [dict(zip("ab", floats(5), strict=True)) for _ in range(2)]
    net = Net(pair=nn.Bilinear(5, 5, 6), head=nn.Linear(6, 2))
    return Network(net, batches, forward=lambda model, batch: model(batch))


PLAIN = {
    build.__name__.replace("_", " "): build
    for build in (
        perceptron, convolutions, volumes, time_series, residual, unet, reused_before_a_new_layer,
        used_twice_around_another, weights_tied, transformer_batch_first, transformer_token_first,
        transformer_token_first_inside, sequence_to_sequence, lstm_batch_first, gru_token_first, bidirectional,
        cells_in_a_loop, tokens_flattened, windows, bias_of_positions, learned_queries, actor_and_critic,
        actor_and_critic_apart, double_dqn, gan, vae, vq_vae, siamese, mixture_of_experts, frozen_backbone,
        checkpointed, in_place, weight_norm, low_rank_adapters, images_of_several_scales, mixer,
        bilinear_and_dict,
    )
}  # fmt: skip
