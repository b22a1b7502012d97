"""What would wait for a device, counted on a CPU, where nothing does."""

import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from ray_mae.batch import VolumeBatch

_READS = {
    *("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"),
    *("__array__", "__contains__", "allclose"),
}
"""Methods by which the host asks for values."""
_INDEXES = {"__getitem__", "__setitem__"}
_COPIES = {"tensor", "as_tensor", "new_tensor"}
"""They make a tensor of the host's numbers: on a device a copy that is waited for."""


def on_device(batch: Any) -> Any:
    """A batch as a worker moves it to its device, where that is a CPU."""
    batch = batch.to("cpu")
    if isinstance(batch, VolumeBatch):  # the host's is another tensor than the device's
        return replace(batch, known_draw=batch.draw.clone())
    return batch


class Waits:
    """A block in which each wait for the device is noted, with the line that asked.

    A CPU stands for the device, so tensors are known by where they come from: those given, and all that is
    computed from them, are the device's; others lie on the host, and may be read.

    Args:
        device: modules, and batches or lists of tensors.
    """

    def __init__(self, *device: Any) -> None:
        self.found: list[str] = []
        self._calls = _Calls(self.found, device)
        self._operations = _Operations(self.found)

    def __enter__(self) -> "Waits":
        self._operations.__enter__()
        self._calls.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._calls.__exit__(*error)
        self._operations.__exit__(*error)


class _Operations(TorchDispatchMode):
    """Operations whose result has a shape that depends on values, also inside of PyTorch."""

    NAMES = (
        *("is_nonzero", "equal", "nonzero", "masked_select", "bincount"),
        *("unique_dim", "_unique2", "unique_consecutive", "argwhere"),
    )

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.NAMES:
            self._found.append(f"{func}: {_line()}")
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Reads by the host, and copies from it that are waited for."""

    def __init__(self, found: list[str], device: Any) -> None:
        super().__init__()
        self._found = found
        self._known: Any = WeakIdKeyDictionary()
        """True: of the device. False: made where others lie, so of the device where those are."""
        for each in device:
            if isinstance(each, torch.nn.Module):
                roots = [*each.parameters(), *each.buffers()]
            else:
                known = {"known_draw", "known_most"}  # of the host, by their names
                more = {} if isinstance(each, list) else vars(each)
                roots = each if isinstance(each, list) else [more[n] for n in {*more} - known]
            for tensor in roots:
                if isinstance(tensor, Tensor):
                    self._known[tensor] = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        marks = [self._known.get(t) for t in _tensors(args, kwargs.values())]
        on_device, placed = True in marks, kwargs.get("device") is not None
        reads = on_device and name in _READS
        indexes = on_device and name in _INDEXES and self._by_host(args[1:])
        copies = name in _COPIES and (placed or (on_device and name == "new_tensor"))
        if reads or indexes or copies:
            self._found.append(f"{name}: {_line()}")
        result = func(*args, **kwargs)
        if on_device or placed or False in marks:
            for tensor in _tensors([result]):
                self._known[tensor] = on_device
        return result

    def _by_host(self, index: Any) -> bool:
        """Whether a tensor of the device is indexed by a list, by a mask, or by a tensor of the host."""
        parts = index[0] if isinstance(index[0], tuple) else (index[0],)
        return any(
            isinstance(part, list)
            or (isinstance(part, Tensor) and part.dtype == torch.bool)
            or (isinstance(part, Tensor) and part.ndim > 0 and part not in self._known)
            for part in parts
        )


def _tensors(*groups: Any) -> Iterator[Tensor]:
    """Those among arguments, and in lists and tuples of them."""
    for group in groups:
        for value in group:
            if isinstance(value, Tensor):
                yield value
            elif isinstance(value, (list, tuple)):
                yield from _tensors(value)


def _line() -> str:
    """Who asked: the last line of this project or of DeepSpeed."""
    for frame in reversed(traceback.extract_stack()):
        if "ray_mae/" in frame.filename and "/torch/" not in frame.filename:
            if frame.filename.endswith("tests/waits.py"):
                continue
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "outside"
