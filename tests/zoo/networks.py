"""All networks of the zoo by name."""

from tests.zoo.plain import PLAIN


def every():
    """Return all networks, those of other packages among them, which must be installed."""
    from tests.zoo.graphs import GRAPHS
    from tests.zoo.language import LANGUAGE
    from tests.zoo.vision import VISION

    return {**PLAIN, **LANGUAGE, **VISION, **GRAPHS}
