"""Graph networks of PyTorch Geometric; their samples are nodes."""

import torch
from torch import nn
from torch_geometric import nn as pyg

from tests.zoo.network import SAMPLES, Network, floats, unpacked

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 0, 3]])


class Graph(nn.Module):
    """Convolutions with a ReLU between, and a head where there is one."""

    def __init__(self, *convolutions: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.convolutions, self.head = nn.ModuleList(convolutions), head

    def forward(self, x, edges):
        for index, convolution in enumerate(self.convolutions):
            x = convolution(torch.tanh(x) if index else x, edges)
        return x if self.head is None else self.head(x)


def _of(make) -> object:
    def build() -> Network:
        batches = [(x, EDGES) for x in floats(5)]
        return Network(make(), batches, forward=unpacked, remark="samples are nodes")

    return build


GRAPHS = {
    "GCN": _of(lambda: Graph(pyg.GCNConv(5, 8), pyg.GCNConv(8, 3))),
    "GAT": _of(lambda: Graph(pyg.GATConv(5, 4, heads=2), pyg.GATConv(8, 3))),
    "GraphSAGE": _of(lambda: Graph(pyg.SAGEConv(5, 8), pyg.SAGEConv(8, 3), head=nn.Linear(3, 2))),
    "attention over edges": _of(
        lambda: Graph(pyg.TransformerConv(5, 4, heads=2), pyg.GATv2Conv(8, 6), head=nn.Linear(6, 2))
    ),
    "EdgeConv": _of(
        lambda: Graph(pyg.EdgeConv(nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 4))), pyg.TAGConv(4, 3))
    ),
    "GIN": _of(
        lambda: Graph(pyg.GINConv(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8))), head=pyg.Linear(8, 2))
    ),
}
assert EDGES.max() < SAMPLES
