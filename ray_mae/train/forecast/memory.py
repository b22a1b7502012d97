"""What an engine leaves on each worker: bytes of weights, gradients and optimiser states. Needs no PyTorch.

The theory is that of Rajbhandari et al. 2020 (ZeRO), with what DeepSpeed keeps beside it, as measured by
benchmarks/zero_memory.py.
"""

from dataclasses import dataclass

from ray_mae.config import EngineConfig

STAGES = (0, 1, 2, 3)
DDP = "DDP"
"""The engine without partitions, beside the stages of ZeRO."""

_BUCKET = 50_000_000
_REDUCED = 500_000_000
"""The same without ZeRO, where DeepSpeed leaves no choice."""
_LIVE = 1_000_000_000
"""Parameters that ZeRO 3 gathers at most at a time (DeepSpeed's stage3_max_live_parameters)."""


@dataclass(frozen=True)
class States:
    """Bytes on one worker, without activations."""

    weights: float
    gradients: float
    optimizer: float
    """Moments and, in ZeRO 1 to 3, the fp32 weights that the optimiser works on."""
    buffers: float
    """Beside them in a backward pass: gradients being reduced and, in ZeRO 3, weights gathered."""
    step: float
    """Beside what is kept in the optimiser's step, when no activation is left."""

    @property
    def kept(self) -> float:
        return self.weights + self.gradients + self.optimizer

    def most(self, activations: float) -> float:
        """At any time, with activations of so many bytes."""
        return self.kept + max(self.buffers + activations, self.step)


def bucket(parameters: int) -> int:
    """How many gradients are reduced at a time.

    DeepSpeed's own 500 million would take 2 GB of every worker, more than all gradients of a ViT-L, in each
    backward pass of ZeRO 1 and 2 and always in ZeRO 3. A tenth keeps a network as busy.
    """
    return min(parameters, _BUCKET)


def moments(optimizer: str) -> int:
    """Numbers that the optimiser keeps of each parameter, in fp32: two of AdamW, one of SGD."""
    return {"adamw": 2, "sgd": 1}[optimizer]


def real_stage(stage: int, precision: str) -> int:
    """The engine takes ZeRO 1 in place of 0 in bf16, which computes the same."""
    return max(stage, 1) if precision == "bf16" else stage


def row_of(engine: EngineConfig, precision: str) -> str:
    """The row of a table of memory that an engine has: DDP, or the stage that DeepSpeed really takes."""
    engine = engine.chosen
    return DDP if engine.name == "ddp" else str(real_stage(engine.zero_stage or 0, precision))


def ddp_states(parameters: int, *, precision: str, optimizer: str = "adamw") -> States:
    """Of a network with so many parameters, on each of any number of workers.

    Gradients are exchanged where they lie; in bf16 a pass keeps its casts of the weights.
    """
    casts = 2.0 * parameters if precision == "bf16" else 0.0
    return States(
        4.0 * parameters, 4.0 * parameters, 4.0 * moments(optimizer) * parameters, casts, 0.0
    )


def states(
    parameters: int, *, stage: int, workers: int, precision: str, optimizer: str = "adamw"
) -> States:
    """Of a network with so many parameters, trained by so many workers.

    precision: fp32 or bf16; gradients are added up in fp32 in either.
    """
    stage, bf16 = real_stage(stage, precision), precision == "bf16"
    share = {n: parameters / (workers if stage >= n else 1) for n in (1, 2, 3)}
    own = 0 if stage == 0 else 4 * share[1]  # a copy of the weights, even where those are fp32
    held = bucket(parameters)
    if stage == 0:
        gradients, buffers = 4.0 * parameters, 4.0 * min(parameters, _REDUCED)
    elif stage == 1 and bf16:  # all gradients in fp32, beside those of the pass in bf16
        gradients, buffers = 6.0 * parameters, 0.0
    else:  # in fp32 DeepSpeed's ZeRO 1 drops the gradients of others as soon as they are reduced
        gradients, buffers = 4.0 * parameters / workers, (8.0 if bf16 else 4.0) * held
    weights = (2.0 if bf16 else 4.0) * share[3]
    if stage == 3:
        buffers = 8.0 * held + (2.0 if bf16 else 4.0) * min(parameters, _LIVE)
    copied = stage == 3 or (stage > 0 and not bf16)  # gradients, into one row
    step = 4.0 * (moments(optimizer) + copied) * share[1] + (4.0 * held if stage == 3 else 0)
    return States(weights, gradients, own + 4.0 * moments(optimizer) * share[1], buffers, step)


def checkpoint_bytes(
    parameters: int, *, engine: EngineConfig, precision: str, optimizer: str
) -> float:
    """Of one checkpoint, over all workers: fp32 weights to load, DeepSpeed's own, optimiser states."""
    plain = parameters * (4.0 + 4 * moments(optimizer))
    engine = engine.chosen
    if engine.name == "ddp":
        return plain
    stage = real_stage(engine.zero_stage or 0, precision)
    own = 0 if stage == 0 else 4
    # ZeRO 3 saves the optimiser's copy of the weights alone
    weights = 0 if stage == 3 else 2 if precision == "bf16" else 4
    return plain + parameters * (weights + own)
