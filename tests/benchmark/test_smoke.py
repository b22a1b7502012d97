"""The check of an encoder before it is ranked finds what would make its features others than its makers'."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ray_mae.benchmarking import smoke
from ray_mae.benchmarking.smoke import check_images, reference_features, worst_of
from tests.open_weights import makers

IMAGES = [np.random.default_rng(i).integers(0, 256, (70 + i, 60), dtype=np.uint8) for i in range(8)]


SEEN = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": makers.SIZE},
    "crop_size": {"height": makers.SIZE, "width": makers.SIZE},
    "image_mean": makers.IMAGENET[0],
    "image_std": makers.IMAGENET[1],
    "do_center_crop": True,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "resample": 3,
}
"""A preprocessor_config.json as DINOv2 has it."""


@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_features_of_others_equal_their_makers(library: str, tmp_path: Path) -> None:
    if library == "timm":
        makers.timm_folder(tmp_path / "source", "dinov2")
    else:
        makers.hf(tmp_path / "source", "dinov2", SEEN)
    found = check_images(tmp_path / "source", IMAGES)
    assert found["difference"] < 1e-4
    assert not found["wrong"]
    assert "equal its makers'" in found["text"]


def test_a_wrong_mean_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the makers' library made of their files, against files that say another mean."""
    path = tmp_path / "source"
    makers.hf(path, "dinov2", SEEN)
    square = [np.asarray(Image.fromarray(image).resize((makers.SIZE,) * 2)) for image in IMAGES]
    theirs = reference_features(path, square)
    monkeypatch.setattr(smoke, "reference_features", lambda *_: theirs)
    assert not check_images(path, IMAGES)["wrong"]
    wrong = {**SEEN, "image_mean": [m - 0.1 for m in SEEN["image_mean"]]}
    (path / "preprocessor_config.json").write_text(json.dumps(wrong))
    found = check_images(path, IMAGES)
    assert found["wrong"]
    assert "differ from its makers'" in found["text"]


def test_weights_that_name_no_library_are_not_compared_and_said_so(tmp_path: Path) -> None:
    makers.mae_file(tmp_path / "mae.pth")
    found = check_images(tmp_path / "mae.pth", IMAGES)
    assert found["difference"] is None
    assert not found["wrong"]
    assert "not compared" in found["text"]


def test_one_wrong_pretraining_among_several_is_told() -> None:
    fine = {"text": "equal", "difference": 1e-6, "wrong": False}
    wrong = {"text": "differ from its makers'", "difference": 0.3, "wrong": True}
    found = worst_of({Path("a"): fine, Path("b"): wrong, Path("c"): fine})
    assert found["wrong"]
    assert found["text"] == "differ from its makers' (1 of 3 are wrong, such as b)"
    assert worst_of({Path("a"): fine}) == fine
    broken = {"text": "not finite", "difference": None, "wrong": True}
    assert worst_of({Path("a"): fine, Path("b"): broken})["wrong"]
    assert not worst_of({Path("a"): fine, Path("b"): fine})["wrong"]
