"""ray_mae: pretrain medical vision encoders on your own archive, on your own Ray cluster.

The commands of `ray-mae` are functions here, with the same settings. What there is stands in
`__init__.pyi`; it is imported on first use, since PyTorch and Ray take seconds and `--help` needs neither.
"""

from importlib.metadata import version
from typing import Any

import lazy_loader

import ray_mae.cluster.runtime  # noqa: F401  sets what Ray reads when it is imported
from ray_mae.extras import explain

__version__ = version("ray-mae")
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A name of the API. Raises ModuleNotFoundError with what to install where it needs an extra."""
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        if text := explain(error):
            raise ModuleNotFoundError(text, name=error.name) from error
        raise
