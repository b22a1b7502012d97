"""What is missing from the light install is named with what brings it."""

import subprocess
import sys

import pytest

from ray_mae.extras import explain, extra_of


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("ray", "train"),
        ("ray.data", "train"),
        ("deepspeed", "train"),
        ("sklearn.linear_model", "train"),
        ("monai", "train"),
        ("onnxscript", "export"),
        ("wandb", "wandb"),
        ("torch", None),  # comes with the package itself
        ("ray_mae.nothing", None),
        ("", None),
    ],
)
def test_a_module_belongs_to_the_extra_that_brings_it(module: str, extra: str | None) -> None:
    assert extra_of(module) == extra
    text = explain(ModuleNotFoundError("no", name=module))
    assert text is None if extra is None else f"pip install 'ray-mae[{extra}]'" in str(text)


WITHOUT = """
import sys

class Nobody:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nobody())
"""
TRAIN = {
    *(
        "ray",
        "deepspeed",
        "timm",
        "torchvision",
        "pandas",
        "pathspec",
        "monai",
        "sklearn",
        "tokenizers",
    ),
    *("tensorboard", "optuna", "optuna_dashboard", "matplotlib", "jinja2", "psutil"),
}
"""Modules of the extra `train` by which torch works all the same."""


def run_without(hidden: set[str], code: str) -> subprocess.CompletedProcess[str]:
    program = WITHOUT.format(hidden=sorted(hidden)) + code
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_a_command_names_the_extra_that_it_needs() -> None:
    words = ["ray-mae", "pretrain", "--method.name", "mvmae", "--shards", "a", "--output", "b"]
    done = run_without({"ray"}, f"sys.argv = {words!r}\nfrom ray_mae.cli import main\nmain()")
    assert done.returncode == 1
    assert (
        done.stderr
        == "ray-mae: ray is not installed, which this needs: pip install 'ray-mae[train]'\n"
    )
    done = run_without({"ray"}, "import ray_mae\nray_mae.embed")
    assert done.stderr.endswith(
        "ray is not installed, which this needs: pip install 'ray-mae[train]'\n"
    )


LOADING = """
import numpy as np, torch, ray_mae
from ray_mae.encoders.registry import ENCODERS
from ray_mae.inference.load import random_encoder
ray_mae.load_encoder, ray_mae.load_classifier, ray_mae.decode_image, ray_mae.decode_volume
for name, size in {sizes}.items():  # those of others are timm's
    encoder = random_encoder(ENCODERS[name](preset="tiny", **size), 0)
    if name == "vit":
        encoder(encoder.preprocessing(np.zeros((40, 60), np.uint8))[None])
    else:
        encoder(torch.zeros(1, 1, 16, 16, 16))
print(*sorted({{m.partition(".")[0] for m in sys.modules}} & {heavy}))
"""


@pytest.mark.slow
def test_encoders_load_and_run_without_what_training_needs() -> None:
    """And import nothing of it where it is installed."""
    sizes = {"vit": {"image_size": 32}, "resenc": {"crop_size": 16}}
    code = LOADING.format(sizes=sizes, heavy=TRAIN)
    done = run_without(TRAIN, code)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
    assert run_without(set(), code).stdout == "\n"
