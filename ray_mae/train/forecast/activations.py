"""How much memory a forward and backward pass takes, found without computing anything.

The method runs on PyTorch's meta device, where tensors have shapes and no data, and every storage that
is alive counts.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors made inside it that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for tensor in tree_iter((args, kwargs)):  # what was there before does not count
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), 0)
        result = self.call(func, args, kwargs or {})
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), tensor.untyped_storage().nbytes())
        return result

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)

    def _count(self, storage: torch.UntypedStorage, size: int) -> None:
        name = storage._cdata
        if name in self._known:
            return
        self._known.add(name)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, name, size)

    def _gone(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size


class _Shapes(LiveBytes):
    """Answers what no shape tells: how many elements are not zero, what a number is."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func._schema.name
        on_meta = any(isinstance(a, Tensor) and a.is_meta for a in args)
        if name == "aten::nonzero" and on_meta:  # small, or soon gone
            return args[0].new_empty((1, args[0].ndim), dtype=torch.long)
        if name == "aten::_local_scalar_dense" and on_meta:
            return 0
        return super().call(func, args, kwargs)


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as on a GPU, where its matrix is never stored; the meta device would store it."""

    def fused(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> Tensor:
        if attn_mask is None and q.dtype != torch.float32:
            flash = torch.ops.aten._scaled_dot_product_flash_attention
            return flash(q, k, v, dropout_p, is_causal)[0]
        if attn_mask is not None:
            attn_mask = attn_mask.expand(*q.shape[:3], k.shape[2])
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention
        return efficient(q, k, v, attn_mask, True, dropout_p, is_causal)[0]

    # a TorchFunctionMode would not see what is recomputed in the backward pass
    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = fused  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before


def activation_bytes(method: nn.Module, batch: Any, precision: str) -> int:
    """The most bytes alive in a forward and backward pass beside weights and their gradients.

    method, batch: on the meta device; the method is converted to the precision, fp32 or bf16.
    Workspaces of GPU libraries and fragmentation are not in it.
    """
    method = method.to(torch.bfloat16 if precision == "bf16" else torch.float32).train()
    for parameter in method.parameters():  # counted elsewhere
        parameter.register_post_accumulate_grad_hook(_drop)
    live = _Shapes()
    with torch.device("meta"), _fused_attention(), live:
        loss = method(batch, _FAR).total
        loss.backward()
    return live.peak


_FAR = 10**9
"""A step at which every term of a loss has its weight."""


def _drop(parameter: Tensor) -> None:
    parameter.grad = None
