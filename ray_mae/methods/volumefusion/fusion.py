"""Two volumes mixed box by box (VolumeFusion, section 2), and the loss of who tells the shares."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.methods.parts.losses import region_mean
from ray_mae.methods.volumefusion.settings import VolumefusionSettings
from ray_mae.random_streams import Stream
from ray_mae.transforms.keyed_random import uniforms


def class_maps(draw: Tensor, side: int, settings: VolumefusionSettings) -> Tensor:
    """[B, 1, S, S, S] int64 classes of voxels, S being the side, by the keys draw [B].

    The number of boxes, their sides, places and classes are uniform. A later box lies over an earlier one;
    what is in none is of class 0.
    """
    low, high = settings.boxes
    least, most = settings.box_least, settings.longest(side)
    u = uniforms(draw, 1 + 7 * high, Stream.FUSE)
    boxes = low + (u[:, 0] * (high - low + 1)).long()  # [B]
    u = u[:, 1:].view(-1, high, 7)
    sides = least + (u[..., :3] * (most - least + 1)).long()  # [B, high, 3]
    start = (u[..., 3:6] * (side - sides + 1)).long()
    kind = (u[..., 6] * settings.classes).to(torch.uint8)  # [B, high]
    place = torch.arange(side, device=draw.device)
    inside = (place >= start[..., None]) & (place < (start + sides)[..., None])  # [B, high, 3, S]
    classes = torch.zeros(len(draw), side, side, side, dtype=torch.uint8, device=draw.device)
    for m in range(high):
        i, j, k = inside[:, m].unbind(1)  # [B, S] each
        i = i & (m < boxes)[:, None]
        box = i[:, :, None, None] & j[:, None, :, None] & k[:, None, None]
        classes = torch.where(box, kind[:, m, None, None, None], classes)
    return classes[:, None].long()


def partners(key: Tensor) -> Tensor:
    """[B] the row with which each is mixed: half of the rows further on in the order of their keys [B].

    So it does not depend on the order of the rows. It is another sample unless more than half of the rows
    are of one.
    """
    order = key.argsort(stable=True)
    rank = order.argsort(stable=True)
    return order[(rank + len(key) // 2) % len(key)]


def standardised(x: Tensor, valid: Tensor) -> Tensor:
    """Volumes x [B, 1, S, S, S] with mean 0 and deviation 1 over what is valid, and 0 elsewhere.

    Or their brightness would tell two of them apart.
    """
    mean = region_mean(x, valid).view(-1, 1, 1, 1, 1)
    deviation = region_mean((x - mean).square(), valid).sqrt().view(-1, 1, 1, 1, 1)
    return torch.where(valid, (x - mean) / deviation.clamp(min=1e-6), 0.0)


def dice_loss(logits: Tensor, classes: Tensor, counted: Tensor) -> Tensor:
    """[B]: 1 − the mean over classes of the soft Dice (2 Σ p q + ε) / (Σ p + Σ q + ε), ε = 1e-5.

    Args:
        logits: [B, K, S, S, S] float32.
        classes: [B, 1, S, S, S] int64.
        counted: the same shape, bool: other voxels do not count.
    """
    p = logits.softmax(1) * counted
    q = torch.zeros_like(p).scatter_(1, classes, 1.0) * counted
    both, each = ((t).flatten(2).sum(2) for t in (p * q, p + q))  # [B, K]
    return 1 - ((2 * both + 1e-5) / (each + 1e-5)).mean(1)


def cross_entropy(logits: Tensor, classes: Tensor, counted: Tensor) -> Tensor:
    """[B]: the mean over the voxels that count; arguments as of `dice_loss`."""
    error = F.cross_entropy(logits, classes[:, 0], reduction="none")[:, None]
    return region_mean(error, counted)
