"""Pictures of segmentations: one axial slice, outlines of the truth and of the predictions."""

import io

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ray_mae.transforms import slices

_PANEL = 2.6
"""Inches."""
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2")
"""Of the classes, in turn: Okabe and Ito's palette."""


def plane_of(classes: NDArray) -> int:
    """The axial slice of [X, Y, Z] that shows most of the truth; the middle one if there is none."""
    area = (classes > 0).sum(axis=(0, 1))
    return int(area.argmax()) if area.any() else classes.shape[2] // 2


def axial(volume: NDArray, plane: int) -> NDArray:
    """[Y, X] of a volume [X, Y, Z] in RAS order: front up, the person's right on the left."""
    return slices.axial(volume[:, :, plane])


def outlines(image: NDArray, truth: NDArray, predictions: dict[str, NDArray]) -> bytes:
    """A PNG: the truth's outlines by class, then each initialisation's prediction over the truth in white.

    image, truth, and predictions by name: [H, W], as of `axial`; the letters R and L say the sides.
    """
    low, high = np.percentile(image, [1, 99])
    panels = {"truth": truth, **predictions}
    height = _PANEL * image.shape[0] / image.shape[1] + 0.3
    out = io.BytesIO()
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        figure = Figure(figsize=(_PANEL * len(panels), height), layout="constrained", dpi=110)
        for axes, (name, classes) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
            if name != "truth":
                _outline(axes, truth > 0, "white", 0.8)
            for k in range(1, int(classes.max(initial=0)) + 1):
                _outline(axes, classes == k, _COLOURS[(k - 1) % len(_COLOURS)], 1.3)
            edge = [withStroke(linewidth=2, foreground="black")]
            for x, letter, side in ((0.02, "R", "left"), (0.98, "L", "right")):
                at = {"ha": side, "va": "top", "transform": axes.transAxes}
                axes.text(x, 0.98, letter, size=13, color="white", path_effects=edge, **at)
            axes.set_title(name)
            axes.set_axis_off()
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _outline(axes: Axes, mask: NDArray, colour: str, width: float) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=[colour], linewidths=width)
