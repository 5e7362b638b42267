"""The type checker of the functional room in tests: an int is a float, as everywhere in typed Python."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
