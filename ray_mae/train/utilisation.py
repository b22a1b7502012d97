"""How much of a GPU's peak a run uses (model FLOPs utilisation, MFU)."""

import torch

from ray_mae.train.gpus import find_gpu


def gpu_name(device: torch.device) -> str | None:
    """What its driver calls it; None for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def memory_taken(device: torch.device) -> dict[str, float]:
    """The figure `gpu_gib`: the most that tensors took of this worker's GPU so far."""
    if device.type != "cuda":
        return {}
    return {"gpu_gib": torch.cuda.max_memory_allocated(device) / 2**30}


def peak_of(device: torch.device, precision: str, given: float | None) -> float | None:
    """FLOP/s of one worker's device at best; None where nobody knows it.

    given: TFLOP/s from the settings, which goes first.
    """
    if given is not None:
        return given * 1e12
    name = gpu_name(device)
    gpu = find_gpu(name) if name else None
    return gpu.peak(precision) * 1e12 if gpu else None


def utilisation(flops: float, workers: int, peak: float | None) -> dict[str, float]:
    """The figure `mfu`: FLOPs of the method per second over all workers, over their peak.

    What is computed twice (activation checkpointing) counts once, as usual.
    """
    return {} if peak is None else {"mfu": flops / (peak * workers)}
