"""ray_mae: pretrain medical vision encoders on your own archive, on your own Ray cluster.

The commands of `ray-mae` are functions here, with the same settings. What there is stands in
`__init__.pyi`; it is imported on first use, since PyTorch and Ray take seconds and `--help` needs neither.
"""

from importlib.metadata import version

import lazy_loader

import ray_mae.cluster.runtime  # noqa: F401  sets what Ray reads when it is imported

__version__ = version("ray-mae")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
