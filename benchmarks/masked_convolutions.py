"""What it costs that convolutions do not see what is hidden: CPU seconds of a pass, in turn in one process.

    python -m benchmarks.masked_convolutions [--rounds 4] [--record]

Forward and backward of encoders with random weights, of whole inputs and with 60 % hidden in units of 32. One
thread, so that seconds are work and not waiting.
"""

import statistics
import time

import torch

from benchmarks.record import Cell, finish, parser_of
from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import MapEncoder
from ray_mae.encoders.convnextv2_settings import ConvNextV2Settings
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.sparse import Active
from ray_mae.methods.mae.settings import UNIT, MaeSettings
from ray_mae.methods.parts.masking import Masks

RATIO = 0.6
NETWORKS: tuple[tuple[EncoderSettings, int], ...] = (
    (ResEncSettings(preset="tiny", crop_size=64), 1),
    (ConvNextV2Settings(preset="atto"), 2),
)
"""Settings, and inputs of a pass."""


def seconds(encoder: MapEncoder, x: torch.Tensor, active: Active | None) -> float:
    """CPU seconds of forward and backward."""
    began = time.process_time()
    torch.stack([h.square().mean() for h in encoder.skips(x, active=active)]).sum().backward()
    return time.process_time() - began


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Cell]] = []
    for settings, inputs in NETWORKS:
        encoder = build_encoder(settings)
        assert isinstance(encoder, MapEncoder)
        x = torch.randn(inputs, 1, *[settings.input_size] * settings.dimensions)
        grid = (settings.input_size // UNIT,) * settings.dimensions
        hidden = Masks(MaeSettings(), grid, RATIO).hidden(torch.arange(inputs))
        each = [
            (seconds(encoder, x, None), seconds(encoder, x, Active(~hidden)))
            for _ in range(given.rounds + 1)
        ]
        dense, masked = (statistics.median(of[1:]) for of in zip(*each, strict=True))
        rows.append(
            {
                "encoder": settings.described,
                "dense, CPU s": dense,
                "masked, CPU s": masked,
                "times": masked / dense,
            }
        )
    finish(given, rows, f"The median of {given.rounds} rounds; {RATIO:.0%} hidden saves nothing.")


if __name__ == "__main__":
    main()
