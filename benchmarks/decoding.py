"""What reconstructing a share of the hidden patches saves: CPU seconds of a step, in turn in one process.

    python -m benchmarks.decoding [--preset small] [--image-size 224] [--views 8] [--rounds 3] [--record]

MVMAE and MVMAE-V2T with the settings of the paper (90 % hidden) and random weights; a step is forward and
backward of one micro-batch. One thread, so that seconds are work and not waiting.
"""

import statistics
import time

import torch

from benchmarks.record import Cell, finish, parser_of
from tests.batches import VOCABULARY, study_batch
from tests.settings import build_of, sections

SHARES = (1.0, 0.5, 0.25)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--views", type=int, default=8, help="two of each study")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    batch = study_batch([2] * (given.views // 2), canvas=round(1.2 * given.image_size))
    rows: list[dict[str, Cell]] = []
    for gamma, name in ((0.0, "MVMAE"), (1.0, "MVMAE-V2T")):
        values = {"preset": given.preset, "image_size": given.image_size, "gamma": gamma}
        models = {
            share: build_of(
                sections("mvmae", **values, decode_share=share, max_tokens=128),
                vocabulary=VOCABULARY,
            )
            for share in SHARES
        }
        seconds: dict[float, list[float]] = {share: [] for share in SHARES}
        for _ in range(given.rounds + 1):
            for share, model in models.items():
                began = time.process_time()
                model(batch, 100).total.backward()
                seconds[share].append(time.process_time() - began)
        whole = statistics.median(seconds[1.0][1:])
        for share in SHARES:
            step = statistics.median(seconds[share][1:])
            rows.append(
                {
                    "method": name,
                    "decode_share": share,
                    "CPU s a step": step,
                    "of the whole": step / whole,
                }
            )
    finish(
        given,
        rows,
        f"ViT of preset {given.preset} at {given.image_size} px, {given.views} views; the median of "
        f"{given.rounds} rounds.",
    )


if __name__ == "__main__":
    main()
