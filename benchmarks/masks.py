"""What each mask costs beside random ones, and a picture of them all.

    python -m benchmarks.masks [--preset small] [--views 4] [--rounds 3] [--record]
    python -m benchmarks.masks --picture docs/masks.png [--steps 100]

CPU seconds, in turn in one process, on one thread: of choosing a mask of 14² patches (of 10³ blocks), and
of a step of MAE (forward and backward of one micro-batch at 224 px, 75 % hidden). Guided masks are measured
past their warm-up. The picture is of simulated chests and heads; its guided masks follow a small encoder that
was trained on a few chests for `--steps` steps.
"""

import statistics
import time
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks.record import Cell, finish, parser_of
from ray_mae.batch import StudyBatch
from ray_mae.data.phantoms.brain_anatomy import draw_head, show
from ray_mae.data.phantoms.chest_cohort import chest_of
from ray_mae.data.phantoms.chest_projection import FRONTAL, expose
from ray_mae.encoders.patches import enlarge
from ray_mae.methods.base import Method
from ray_mae.methods.mae.settings import MaeSettings
from ray_mae.methods.parts.attention_masks import Guide
from ray_mae.methods.parts.mask_settings import GUIDED, MaskSettings
from ray_mae.methods.parts.masking import Masks
from ray_mae.transforms.images import whole
from ray_mae.transforms.slices import axial
from tests.batches import study_batch
from tests.settings import build_of, sections

NAMES: tuple[str, ...] = get_args(get_type_hints(MaskSettings)["mask"])
RATIO = 0.75
LAST = 100
"""Steps of the runs of tests.settings: past every warm-up."""
COLOURS, ACROSS, GAP = 24, 5, 4
"""Of the picture: few colours, so that its file stays small; masks side by side; pixels between tiles."""
VEIL = np.array([0.25, 0.42, 0.62])
"""Colour of what is hidden."""


def choosing(name: str, inputs: int, rounds: int) -> tuple[float, float]:
    """Milliseconds of an input's mask on 14² cells and on 10³."""
    found = []
    for grid in ((14,) * 2, (10,) * 3):
        masks, draw = Masks(MaeSettings(mask=name), grid, RATIO), torch.arange(inputs) * 7919  # type: ignore[arg-type]
        seconds = []
        for _ in range(rounds + 1):
            began = time.process_time()
            masks(draw)
            seconds.append(time.process_time() - began)
        found.append(1e3 * statistics.median(seconds[1:]) / inputs)
    return found[0], found[1]


def measure(given: Any) -> None:
    batch = study_batch([1] * given.views, canvas=256)
    values = {"preset": given.preset, "image_size": 224, "mask_ratio": RATIO}
    models = {name: build_of(sections("mae", **values, mask=name)) for name in NAMES}
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(given.rounds + 1):
        for name, model in models.items():
            began = time.process_time()
            model(batch, LAST).total.backward()
            seconds[name].append(time.process_time() - began)
    plain, work = statistics.median(seconds["random"][1:]), models["random"].flops(1, 1)
    rows: list[dict[str, Cell]] = []
    for name, model in models.items():
        images, volumes = (0.0, 0.0) if name in GUIDED else choosing(name, 64, given.rounds)
        step = statistics.median(seconds[name][1:])
        rows.append(
            {
                "mask": name,
                "ms a mask, 14²": images or "asks the encoder",
                "ms a mask, 10³": volumes or "asks the encoder",
                "CPU s a step": step,
                "of random": step / plain,
                "operations of random": model.flops(1, 1) / work,
            }
        )
    finish(
        given,
        rows,
        f"MAE, ViT of preset {given.preset} at 224 px, {given.views} views; the median of {given.rounds} "
        "rounds. Operations are a mean over the run, in whose first tenth sgmae asks nothing.",
    )


def chests(number: int, size: int) -> Tensor:
    """[n, 1, size, size] uint8 frontal films of as many simulated chests."""
    films = []
    for patient in range(number):
        rng = np.random.default_rng([1, patient])
        film = expose(chest_of(1, patient, 0, {})[0], FRONTAL, size, rng, varied=0.5)
        middle = [(side - size) // 2 for side in film.shape]
        film = film[middle[0] :, middle[1] :][:size, :size].astype(np.float32)
        low, high = np.quantile(film, (0.01, 0.99))
        films.append((255 * ((film - low) / (high - low)).clip(0, 1)).astype(np.uint8))
    return torch.from_numpy(np.stack(films))[:, None]


def films_batch(films: Tensor, draw: int) -> StudyBatch:
    """Each film as a study of one view."""
    batch: Any = study_batch([1] * len(films), seed=draw, canvas=films.shape[2])
    batch.images[:] = films
    batch.view[:] = 0
    return batch  # type: ignore[no-any-return]


def trained(films: Tensor, steps: int) -> Method:
    """A small MAE of 14² patches that has seen these films for some steps."""
    values = {"width": 96, "depth": 4, "heads": 3, "decoder_depth": 1}
    values |= {"image_size": films.shape[2], "patch_size": films.shape[2] // 14}
    model = build_of(sections("mae", **values, crop_scale=(0.8, 1.0)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    for step in range(steps):
        rows = torch.randperm(len(films), generator=torch.Generator().manual_seed(step))[:8]
        model(films_batch(films[rows], step), step).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def tile(grey: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """A picture [H, W] in [0, 1] with a veil over what is hidden, as bytes [H, W, 3]."""
    grey, hidden = grey[..., None], hidden[..., None]
    return (255 * np.where(hidden, (0.6 + 0.4 * grey) * VEIL, grey)).astype(np.uint8)


def draw_picture(path: Path, steps: int, side: int = 112) -> None:
    """Two masks of a chest and one of a head, by every name, into a PNG file."""
    films = chests(24, side)
    model: Any = trained(films, steps)
    one = films_batch(films[:1].expand(2, -1, -1, -1), 0)
    x = whole(one, side)
    guide = Guide(model.encoder, x, one.view)
    rng = np.random.default_rng(4)
    head = show(draw_head(rng, 80), "T1w", rng, 0.02)
    brain = axial((head / np.quantile(head, 0.995)).clip(0, 1)[:, :, 40])
    columns = []
    for name in NAMES:
        settings = MaeSettings(mask=name, mask_hints=0.0)  # type: ignore[arg-type]
        hidden = enlarge(Masks(settings, (14, 14), RATIO).hidden(one.view_draw, guide), side // 14)
        tiles = [tile(films[0, 0].numpy() / 255, h) for h in hidden.numpy()]
        if name in GUIDED:
            tiles.append(np.full((side, side, 3), 255, np.uint8))
        else:
            cells = Masks(settings, (10, 10, 10), RATIO).hidden(one.view_draw[:1])[0].numpy()
            cells = axial(cells.repeat(8, 0).repeat(8, 1)[:, :, 5])
            tiles.append(np.asarray(Image.fromarray(tile(brain, cells)).resize((side, side))))
        framed = [np.pad(t, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for t in tiles]
        columns.append(np.concatenate([_named(name, side + GAP), *framed]))
    lines = [np.concatenate(columns[n : n + ACROSS], 1) for n in range(0, len(columns), ACROSS)]
    picture = Image.fromarray(np.concatenate(lines)).quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    print(f"{path}: {picture.width} × {picture.height}, {path.stat().st_size / 1000:.0f} kB")


def _named(name: str, side: int) -> np.ndarray:
    picture = Image.new("RGB", (side, 20), "white")
    ImageDraw.Draw(picture).text((side // 2, 10), name, "black", ImageFont.load_default(14), "mm")
    return np.asarray(picture)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--picture", type=Path, help="draw them into this file, and measure nothing"
    )
    parser.add_argument("--steps", type=int, default=100, help="of the picture's encoder")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.picture:
        draw_picture(given.picture, given.steps)
    else:
        measure(given)


if __name__ == "__main__":
    main()
