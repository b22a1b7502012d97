"""GPUs by name, and the share of their peak."""

import pytest
import torch

from ray_mae.train.forecast.gpus import GPUS, find_gpu, named_gpu
from ray_mae.train.metrics.metrics import peak_of, utilisation


@pytest.mark.parametrize(
    ("driver", "ours"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),  # a seventh of one
        ("NVIDIA T400", None),
    ],
)
def test_a_gpu_is_known_by_what_its_driver_calls_it(driver: str, ours: str | None) -> None:
    found = find_gpu(driver)
    assert (found and found.name) == ours


def test_every_gpu_is_found_by_its_own_name() -> None:
    assert all(named_gpu(gpu.name.lower()) is gpu for gpu in GPUS)


def test_an_unknown_gpu_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean H100\?.* set peak_tflops and gpu_memory"):
        named_gpu("H10")


def test_bf16_is_taken_where_a_gpu_has_it() -> None:
    assert named_gpu("V100").precision("auto") == "fp32"
    assert named_gpu("V100").peak("auto") == named_gpu("V100").fp32
    assert named_gpu("A100").precision("auto") == "bf16"
    assert named_gpu("A100").peak("fp32") < named_gpu("A100").peak("bf16")


def test_utilisation_is_shown_where_the_peak_is_known() -> None:
    cpu = torch.device("cpu")
    assert utilisation(1e9, 2, peak_of(cpu, "fp32", None)) == {}
    assert utilisation(1e9, 2, peak_of(cpu, "fp32", 0.001)) == {"mfu": 0.5}
