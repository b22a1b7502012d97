"""Images and volumes cut into patches, and put together again."""

from torch import Tensor


def patchify(x: Tensor, patch: int) -> Tensor:
    """Cuts images or volumes into patches, the last axis fastest: [N, 1, *sides] → [N, L, patch^d].

    Args:
        x: of d axes, whose sides are multiples of `patch`.
        patch: side of a patch, in pixels or voxels.
    """
    N, _, *sides = x.shape
    d = len(sides)
    cut = x.reshape(N, *(n for side in sides for n in (side // patch, patch)))
    order = [0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2)]
    return cut.permute(order).reshape(N, -1, patch**d)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, ...]) -> Tensor:
    """Puts patches together: [N, L, patch^d] → [N, 1, *sides]. The inverse of `patchify`.

    Args:
        patches: of d axes.
        patch: side of a patch, in pixels or voxels.
        grid: how many patches there are along each axis; their product is L.
    """
    N, d = len(patches), len(grid)
    cut = patches.reshape(N, *grid, *[patch] * d)
    order = [0, *(axis for i in range(1, d + 1) for axis in (i, i + d))]
    return cut.permute(order).reshape(N, 1, *(n * patch for n in grid))


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Picks rows of x [N, L, D] by index [N, K]: [N, K, D]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def put(x: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Returns x [N, L, D] with rows [N, K, D] in the place of those of index [N, K]: `gather` undone."""
    return x.scatter(1, index[..., None].expand_as(rows), rows.to(x.dtype))


def enlarge(x: Tensor, times: int) -> Tensor:
    """Repeats each value of a grid [N, *grid] along every axis: [N, *(times · grid)]."""
    for axis in range(1, x.ndim):
        x = x.repeat_interleave(times, dim=axis)
    return x
