"""Pure tensor functions."""

from lightning_saturation.functional.cca import cca, class_similarity, pwcca, svcca
from lightning_saturation.functional.density import eigenvalue_histogram
from lightning_saturation.functional.dft import dft_cca
from lightning_saturation.functional.histogram import Decay, Histogram, decay
from lightning_saturation.functional.kernel_alignment import linear_cka, procrustes
from lightning_saturation.functional.lasso import sparse_mapping
from lightning_saturation.functional.matching import match_units, unit_correlation
from lightning_saturation.functional.operators import LayerOperator
from lightning_saturation.functional.pairs import PairMoments, pair_moments
from lightning_saturation.functional.spectrum import (
    effective_rank,
    intrinsic_dimension,
    participation_ratio,
    saturation,
    stable_rank,
)
from lightning_saturation.functional.two_nn import two_nn_dimension, two_nn_estimate, two_nn_scales

__all__ = [
    "Decay",
    "Histogram",
    "LayerOperator",
    "PairMoments",
    "cca",
    "class_similarity",
    "decay",
    "dft_cca",
    "effective_rank",
    "eigenvalue_histogram",
    "intrinsic_dimension",
    "linear_cka",
    "match_units",
    "pair_moments",
    "participation_ratio",
    "procrustes",
    "pwcca",
    "saturation",
    "sparse_mapping",
    "stable_rank",
    "svcca",
    "two_nn_dimension",
    "two_nn_estimate",
    "two_nn_scales",
    "unit_correlation",
]
