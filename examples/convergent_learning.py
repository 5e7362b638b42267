"""Do two networks from different seeds learn the same units? (Li et al., Convergent learning, figures 1 to 4, table 1)

    python examples/convergent_learning.py                         scikit-learn's digits, well under a minute
    python examples/convergent_learning.py --data photos.zip --model vgg11 --width 0.25

Leaves convergent_<layer>.png for the first layer (--layers for others) and sparse_mapping.png in --out, and prints the
table of losses by layer and decay.
"""

from __future__ import annotations

import sys

from common import images, quiet
from common.training import arguments, train

from lightning_saturation import match_networks, select_layers


def main() -> int:
    parser = arguments(__doc__, epochs=10)
    parser.add_argument("--layers", nargs="*", help="layers to draw; the first one unless told")
    options = parser.parse_args()
    quiet()
    data = images(options.data, limit=options.limit, size=options.size)
    first, second = (train(data, options, seed=options.seed + i) for i in range(2))
    names = list(select_layers(first.model))
    learning = match_networks(first.model, second.model, data.test_loader(), layers=names[:-1], progress=False)
    print(f"two {options.model} on {data}: accuracy {first.accuracy:.3f} and {second.accuracy:.3f}\n\n{learning}\n")
    for name in options.layers or names[:1]:
        match = learning.layers[name]
        print(f"{name}: best pairs (unit, partner, correlation)")
        print("  ", ", ".join(f"{p['unit']}-{p['partner']} {p['correlation']:.2f}" for p in learning.pairs(name)[:8]))
        match.plot(title=f"{name}: {match.samples} positions").savefig(options.out / f"convergent_{name}.png", dpi=80)
    learning.plot().savefig(options.out / "sparse_mapping.png", dpi=100)
    print(f"Pictures: {options.out}/convergent_*.png, sparse_mapping.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
