"""How far nnU-Net's normalisation moves the features of volumes, through its own preprocessing.

It takes an environment with nnunetv2 and this package (`pip install nnunetv2 ray-mae`):
python -m benchmarks.nnunet_normalisation --checkpoint encoder
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

import ray_mae
from ray_mae.data.decoding.foreground import foreground
from ray_mae.data.phantoms.brain_anatomy import CSF, draw_head, show

Volume = NDArray[np.float32]
SIDE, SPACING_MM, PEOPLE = 72, 2.0, 3
SCHEMES = {
    "z-score, use_mask_for_norm true": ("ZScoreNormalization", True, False),
    "z-score, use_mask_for_norm false": ("ZScoreNormalization", False, False),
    "none, of volumes z-scored before": ("NoNormalization", False, True),
}
"""Scheme, mask, and whether nnU-Net is given z-scores of ours."""


def plans(scheme: str, mask: bool) -> PlansManager:
    """Plans with one configuration, at the volumes' own spacing."""

    def resampling(order: int, is_seg: bool) -> dict[str, Any]:
        return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}

    configuration = {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [32] * 3,
        "spacing": [SPACING_MM] * 3,
        "normalization_schemes": [scheme],
        "use_mask_for_norm": [mask],
        "architecture": {"network_class_name": "x", "arch_kwargs": {}, "_kw_requires_import": []},
        **{
            f"resampling_fn_{name}{what}": value
            for name, order, is_seg in (("data", 3, False), ("seg", 1, True))
            for what, value in (
                ("", "resample_data_or_seg_to_shape"),
                ("_kwargs", resampling(order, is_seg)),
            )
        },
    }
    return PlansManager(
        {
            "dataset_name": "x",
            "plans_name": "x",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "foreground_intensity_properties_per_channel": {"0": {}},
            "configurations": {"3d": configuration},
        }
    )


def preprocess(file: Path, scheme: str, mask: bool) -> tuple[Volume, list[list[int]]]:
    """What nnU-Net makes of a file, [x, y, z], and the box that it cropped to."""
    data, properties = SimpleITKIO().read_images([str(file)])
    manager = plans(scheme, mask)
    made, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        data, None, properties, manager, manager.get_configuration("3d"), {}
    )
    return made[0].transpose(2, 1, 0), properties["bbox_used_for_cropping"][::-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="an encoder of volumes")
    encoder, _ = ray_mae.load_encoder(parser.parse_args().checkpoint)
    stride = encoder.settings.stages.stride

    def features(z: Volume) -> torch.Tensor:
        sides = [n // stride * stride for n in z.shape]
        middle = tuple(
            slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(z.shape, sides, strict=True)
        )
        with torch.inference_mode():
            return encoder(torch.from_numpy(np.ascontiguousarray(z[middle]))[None, None])[0]

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.cosine_similarity(a, b, dim=0))

    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("brain alone", "whole head"):
            found: dict[str, list[float]] = {name: [] for name in SCHEMES}
            ours = []
            for person in range(PEOPLE):
                rng = np.random.default_rng(person)
                head = draw_head(rng, SIDE)
                values = show(head, "T1w", rng, 0.03)
                if kind == "brain alone":
                    values = np.where(head.tissue >= CSF, values, 0)
                inside = values[foreground(values)]
                z = ((values - inside.mean()) / inside.std()).astype(np.float32)
                ours.append(features(z))
                for name, (scheme, mask, before) in SCHEMES.items():
                    file = Path(scratch, "volume.nii.gz")
                    given = z if before else values.astype(np.float32)
                    nib.save(nib.Nifti1Image(given, np.diag([SPACING_MM] * 3 + [1])), file)
                    made, box = preprocess(file, scheme, mask)
                    expected = features(z[tuple(slice(*ends) for ends in box)])
                    found[name].append(cosine(features(made), expected))
            for name, values_of in found.items():
                print(f"{kind}: {name}: cosine {min(values_of):.6f} to {max(values_of):.6f}")
            print(f"{kind}: another person: {cosine(ours[0], ours[1]):.6f}")


if __name__ == "__main__":
    main()
