"""Pure tensor functions of all instruments."""

from lightning_saturation.covariance.spectrum import (
    effective_rank,
    intrinsic_dimension,
    participation_ratio,
    saturation,
    stable_rank,
)
from lightning_saturation.dimension.two_nn import two_nn_dimension, two_nn_estimate, two_nn_scales
from lightning_saturation.matching.lasso import sparse_mapping
from lightning_saturation.matching.units import match_units, unit_correlation
from lightning_saturation.operators.density import eigenvalue_histogram
from lightning_saturation.operators.histogram import Decay, Histogram, decay
from lightning_saturation.operators.layer_operator import LayerOperator
from lightning_saturation.similarity.cca import cca, class_similarity, pwcca, svcca
from lightning_saturation.similarity.dft import dft_cca
from lightning_saturation.similarity.kernel_alignment import linear_cka, procrustes
from lightning_saturation.similarity.pairs import PairMoments, pair_moments
from lightning_saturation.stopping.settled import settled

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
    "settled",
    "sparse_mapping",
    "stable_rank",
    "svcca",
    "two_nn_dimension",
    "two_nn_estimate",
    "two_nn_scales",
    "unit_correlation",
]
