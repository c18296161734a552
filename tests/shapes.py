"""The run-time checker of the shapes in signatures, for the `--jaxtyping-packages` option in pyproject.toml."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float, as for mypy
