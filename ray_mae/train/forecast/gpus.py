"""What GPUs can do at best, by name: from the makers' data sheets. Needs no PyTorch."""

import difflib
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU, or what stands for it."""

    name: str
    memory: float
    """GiB that a program finds free on an idle one."""
    bf16: float | None
    """Dense tensor-core peak with fp32 sums, in TFLOP/s, without sparsity; None: it has no bf16."""
    fp32: float
    """Peak in TFLOP/s without tensor cores (TF32 is above it)."""
    link: float = 25.0
    """GB/s that it exchanges with others of its node, one way: NVLink, or PCIe 4 with 16 lanes."""

    def peak(self, precision: str) -> float:
        """TFLOP/s in fp32 or bf16; "auto" is what the engine would choose."""
        if precision != "fp32" and self.bf16:
            return self.bf16
        return self.fp32

    def precision(self, setting: str) -> str:
        """What a run on it computes in; setting: fp32, bf16 or auto."""
        return setting if setting != "auto" else "bf16" if self.bf16 else "fp32"


GPUS = (
    Gpu("B200", 178, 2250, 75, 900),
    Gpu("H200", 139, 989, 67, 450),
    Gpu("H200 NVL", 139, 835, 60, 450),
    Gpu("GH200", 94, 989, 67, 450),
    Gpu("H100", 79, 989, 67, 450),
    Gpu("H100 NVL", 93, 835, 60, 300),
    Gpu("H100 PCIe", 79, 756, 51, 50),
    Gpu("A100", 79, 312, 19.5, 300),
    Gpu("A100 40GB", 39, 312, 19.5, 300),
    Gpu("A40", 44, 150, 37.4),
    Gpu("A30", 23, 165, 10.3),
    Gpu("A10", 22, 125, 31.2),
    Gpu("A10G", 22, 70, 35),
    Gpu("L40S", 44, 362, 91.6),
    Gpu("L40", 44, 181, 90.5),
    Gpu("L4", 22, 121, 30.3),
    Gpu("RTX 6000 Ada", 47, 364, 91.1),
    Gpu("RTX A6000", 47, 155, 38.7),
    Gpu("RTX 5090", 31, 209, 104.8, 50),
    Gpu("RTX 4090", 23, 165, 82.6),
    Gpu("RTX 3090", 23, 71, 35.6),
    Gpu("V100", 16, None, 15.7, 150),
    Gpu("V100 32GB", 32, None, 15.7, 150),
    Gpu("T4", 15, None, 8.1, 12),
)


def find_gpu(name: str) -> Gpu | None:
    """Returns the GPU of a name as people or its driver give it ("NVIDIA A100-SXM4-40GB"), if known.

    A slice of one (MIG) is unknown: it has a part of the peak.
    """
    words = _words(name)
    if "mig" in words:
        return None
    matches = [gpu for gpu in GPUS if _words(gpu.name) <= words]
    return max(matches, key=lambda gpu: len(_words(gpu.name)), default=None)


def named_gpu(name: str) -> Gpu:
    """Returns the GPU of a name in the settings.

    Raises:
        ValueError: it is unknown.
    """
    gpu = find_gpu(name)
    if gpu is None:
        names = {known.name.lower(): known.name for known in GPUS}
        close = difflib.get_close_matches(name.lower(), names, 1)
        hint = f"did you mean {names[close[0]]}? " if close else ""
        raise ValueError(
            f"gpu {name!r} is not known: {hint}Known are {', '.join(names.values())}; for another one "
            "set peak_tflops and gpu_memory"
        )
    return gpu


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[^a-z0-9]+", name.lower()) if word}
