"""Every network of the zoo is measured as it is: layers, order, outputs, rows, features and saturation.

Without ``ZOO=all`` these are those that need no package beside PyTorch; ``python -m tests.zoo`` writes the table.
"""

import os

import pytest

from tests.zoo.check import check
from tests.zoo.networks import PLAIN, every

NETWORKS = every() if os.environ.get("ZOO") == "all" else PLAIN


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("default")
def test_is_measured_as_it_is(name):
    assert not check(NETWORKS[name]).wrong
