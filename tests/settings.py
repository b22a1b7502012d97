"""Settings of runs for tests, from single values."""

from dataclasses import fields, replace
from typing import Any

from ray_mae.config.registry import load
from ray_mae.config.sections import DATA
from ray_mae.encoders.registry import ENCODERS
from ray_mae.methods.base import Context, Method, Vocabulary
from ray_mae.methods.registry import METHODS

SMALL: dict[str, dict[str, Any]] = {
    "vit": {
        "preset": "tiny",
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "depth": 2,
        "heads": 2,
    },
    "convnextv2": {"preset": "atto", "width": 4, "image_size": 64},
    "resenc": {"preset": "tiny", "crop_size": 16},
    "primus": {
        "preset": "tiny",
        "crop_size": 16,
        "patch_size": 4,
        "width": 24,
        "depth": 2,
        "heads": 2,
    },
}
"""Tiny encoders by name."""
_DINO = {
    "prototypes": 32,
    "head_width": 32,
    "bottleneck": 16,
    "locals": 2,
    "koleo": 0.0,  # or its samples are coupled
}
FITTING: dict[str, dict[str, Any]] = {
    "dino": _DINO,
    "dino primus": _DINO,
    "ganmae": {"mask_ratio": 0.5},
    "mae": {"mask_ratio": 0.5},
    "mae convnextv2": {"mask_ratio": 0.5},
    "mae primus": {},
    "mae resenc": {"mask_size": 8, "mask_ratio": 0.5},
    "mdae": {"block_size": 4},
    "rmae": {"mask_ratio": 0.5, "region_width": 16, "region_depth": 1, "regions": 3},
    "rmae primus": {"region_width": 16, "region_depth": 1, "regions": 3},
    "simclr": {"projector_width": 32, "projector_output": 16},
    "simclr primus": {"crop_side": 8, "projector_width": 32, "projector_output": 16},
    "simclr resenc": {
        "crop_size": 24,
        "crop_side": 16,
        "projector_width": 32,
        "projector_output": 16,
    },
    "simmim": {"mask_size": 16},
    "simmim convnextv2": {"mask_size": 16},
    "simmim primus": {"mask_size": 8},
    "simmim resenc": {"mask_size": 4},
    "supervised": {"labels": ["Edema", "Fracture", "Own"]},
    "supervised resenc": {"labels": ["tumour", "contrast=2", "cyst"]},
    "videomac": {"mask_size": 8, "mask_ratio": 0.5},
    "voco": {"crop_size": 32, "target_crops": 1, "projector_width": 32, "projector_output": 16},
    "voco primus": {"projector_width": 32, "projector_output": 16},
}
"""Settings of methods whose defaults do not fit a tiny encoder, or not the one that is named, too."""
CASES: list[str] = [
    *METHODS,
    *(name for name in FITTING if " " in name),
]
"""Methods with their default encoders, then with others: "method encoder"."""


def sections(name: str, **values: Any) -> dict[str, Any]:
    """The sections `method`, `encoder` and `data` of a run.

    Args:
        name: of the method, or "method encoder".
        values: settings of any of the three by their own names; a name that two have goes to the
            first of them.
    """
    of_method, _, of_encoder = name.partition(" ")
    method = METHODS[of_method]()  # type: ignore[call-arg]
    encoder = ENCODERS[of_encoder]() if of_encoder else method.default_encoder()  # type: ignore[call-arg]
    made: dict[str, Any] = {"method": method, "encoder": encoder, "data": DATA[encoder.kind]()}
    for section, default in made.items():
        own = {f.name for f in fields(default)} & set(values)
        made[section] = replace(default, **{key: values.pop(key) for key in own})
    assert not values, f"nobody has the settings {', '.join(values)}"
    return made


def small(name: str, **values: Any) -> dict[str, Any]:
    """The same on a tiny encoder."""
    encoder = sections(name)["encoder"].name
    return sections(name, **(SMALL[encoder] | FITTING.get(name, {}) | values))


def build(name: str, *, seed: int = 0, vocabulary: int = 0, **values: Any) -> Method:
    """A method with fresh weights on the settings of `sections`, of a run of 100 steps."""
    return build_of(sections(name, **values), seed=seed, vocabulary=vocabulary)


def build_of(
    run: dict[str, Any], *, seed: int = 0, vocabulary: int = 0, recompute: bool = False
) -> Method:
    """The same from sections."""
    context = Context(
        seed=seed,
        steps=100,
        warmup_steps=10,
        data=run["data"],
        vocabulary=Vocabulary(vocabulary),
        recompute=recompute,
    )
    run["encoder"].check()
    run["method"].check(run["encoder"], run["data"])
    method: Method = load(run["method"].model_of(run["encoder"])).build(
        run["method"], run["encoder"], context
    )
    return method
