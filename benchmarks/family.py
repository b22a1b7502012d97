"""Settings of the whole family on phantoms, for `benchmarks.fair_table` and `benchmarks.methods`.

Of one kind of sample all have the same steps, batches, crops and grey values, and of one kind of network the
same sizes. What is particular to a method is its paper's, cut down to the network. Nothing was searched.
"""

from typing import Any

from ray_mae.demos import studies, volumes

Flags = dict[str, Any]
"""Settings of `pretrain` by dotted name."""


def _plain(settings: Flags) -> Flags:
    return {name: value for name, value in settings.items() if not name.startswith("method.")}


VIT = _plain(studies.PRETRAIN)
RESENC = {**_plain(volumes.PRETRAIN), "encoder.name": "resenc"}
"""With the optimiser of each method."""
CONVNEXT = {
    **{name: value for name, value in VIT.items() if not name.startswith("encoder.")},
    "encoder.name": "convnextv2",
    "encoder.preset": "atto",
    "encoder.width": 16,
    "encoder.image_size": 128,  # of 64 px the last map would have four points
}
PRIMUS = {
    **_plain(volumes.PRETRAIN),
    "encoder.name": "primus",
    "encoder.preset": "tiny",
    "encoder.patch_size": 8,
    "optim.lr": 1e-3,
}
DECODER = {"method.decoder_width": 64, "method.decoder_depth": 1, "method.decoder_heads": 2}
HIDDEN = {"method.mask_ratio": 0.5}
MAE = {**VIT, **DECODER, **HIDDEN, "method.name": "mae"}
MVMAE = {**VIT, **DECODER, **HIDDEN, "method.name": "mvmae", "method.gamma": 0}
MAE3D = {
    **volumes.PRETRAIN,
    "method.sigma_max": 0,
    "method.lambda_visible": 0,
}
MAE_PRIMUS = {**PRIMUS, **DECODER, **HIDDEN, "method.name": "mae"}
HEADS = {"method.projector_width": 256, "method.projector_output": 64}
DINO = {
    "method.name": "dino",
    "method.locals": 4,
    "method.prototypes": 1024,
    "method.head_width": 256,
    "method.bottleneck": 64,
    "method.momentum": 0.99,  # of the papers' 0.996 a teacher would hardly move in 500 steps
    "optim.clip": 3.0,
}
ADAMW = {"optim.optimizer": "adamw", "optim.lr": 1e-3, "optim.clip": 1.0}
"""nnssl's SGD for contrasts clips gradients to 0.1, with which so few steps go nowhere."""
REGIONS = {"method.name": "rmae", "method.region_width": 32, "method.region_depth": 1}
MASKS = ("block", "green", "zigzag", "hilbert", "peano", "spiral", "sma", "sgmae")

STUDIES: dict[str, Flags] = {
    "mae": MAE,
    **{f"mae_{mask}": {**MAE, "method.mask": mask} for mask in MASKS},
    "umae": {**MAE, "method.uniformity": 0.01},
    "mae_sigreg": {**MAE, "method.sigreg": 0.02},
    "mae_koleo": {**MAE, "method.koleo": 0.1},
    "mae_hog": {**MAE, "method.target": "hog"},
    "mae_teacher": {**MAE, "method.target": "teacher"},
    "crossmae": {**MAE, "method.decoder": "cross"},
    "ganmae": {**MAE, "method.name": "ganmae"},
    "rmae": {**MAE, **REGIONS},
    "mvmae": {**MVMAE, "method.beta": 2},
    "mvmae_infonce": {**MVMAE, "method.beta": 20, "method.alignment": "infonce"},
    "cavmae": {
        **MVMAE,
        "method.cross_view": "true",
        "method.alignment": "infonce",
        "method.alignment_tokens": "patches",
        "method.alignment_temperature": 0.05,
        "method.beta": 0.01,
        "method.norm_pix": "true",
    },
    "v2t": {**studies.PRETRAIN, "method.beta": 2},
    "simmim": {**VIT, "method.name": "simmim", "method.mask_size": 16},
    "fcmae": {**CONVNEXT, "method.name": "mae", "method.mask_ratio": 0.6},
    "simmim_convnextv2": {**CONVNEXT, "method.name": "simmim"},
    "simclr": {**VIT, **HEADS, "method.name": "simclr"},
    "simclr_views": {**VIT, **HEADS, "method.name": "simclr", "method.positives": "views"},
    "dino": {**VIT, **DINO},
    "dino_views": {**VIT, **DINO, "method.pairs": "views"},
    "supervised": {**VIT, "method.name": "supervised"},
}
"""Of X-ray studies. `supervised` reads the labels of training patients, and `v2t` their reports."""

VOLUMES: dict[str, Flags] = {
    "mae3d": MAE3D,
    "mdae": volumes.PRETRAIN,
    **{
        f"mae3d_{mask}": {**MAE3D, "method.mask": mask}
        for mask in ("block", "zigzag", "hilbert", "peano", "spiral")
    },
    "spark": {
        **RESENC,
        **HIDDEN,
        "method.name": "mae",
        "method.mask_size": 8,
        "optim.lr": 3e-3,
    },
    "simmim": {**RESENC, "method.name": "simmim", "method.mask_size": 8},
    "videomac": {**RESENC, **HIDDEN, "method.name": "videomac", "method.mask_size": 8},
    "simclr": {**RESENC, **HEADS, **ADAMW, "method.name": "simclr", "method.crop_side": 16},
    "voco": {**RESENC, **HEADS, **ADAMW, "method.name": "voco"},
    "volumefusion": {**RESENC, "method.name": "volumefusion", "method.box_least": 4},
    "mae_primus": MAE_PRIMUS,
    "mae_primus_sma": {**MAE_PRIMUS, "method.mask": "sma"},
    "mae_primus_hilbert": {**MAE_PRIMUS, "method.mask": "hilbert"},
    "simmim_primus": {**PRIMUS, "method.name": "simmim", "method.mask_size": 8},
    "rmae_primus": {**MAE_PRIMUS, **REGIONS},
    "ganmae_primus": {**MAE_PRIMUS, "method.name": "ganmae"},
    "dino_primus": {**PRIMUS, **DINO},
    "supervised": {**RESENC, "method.name": "supervised", "method.labels": "[high_grade]"},
}
"""Of brain volumes. `supervised` reads the labels of training patients."""


def words(flags: Flags) -> list[str]:
    """Flags as those of a command line."""
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]
