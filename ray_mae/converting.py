"""`checkpoint convert`: a checkpoint for others than the run that wrote it."""

from typing import Any

from ray_mae.config import CheckpointConvertConfig
from ray_mae.train import checkpoint as ckpt
from ray_mae.train.engine import TAG
from ray_mae.train.extract import extracted
from ray_mae.train.universal import make_universal


def checkpoint_convert(config: CheckpointConvertConfig) -> dict[str, Any]:
    """Write weights alone, or DeepSpeed's universal format, to a folder that is new or empty.

    Either has model.safetensors, state.json and the tokenizer, which the other commands read, and
    checksums. Raises ValueError or FileNotFoundError with what to do.
    """
    checkpoint = ckpt.find_checkpoint(config.checkpoint.resolve())
    output = config.output.resolve()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is not empty: choose another --output")
    state = ckpt.read_state(checkpoint)
    if config.to == "universal" and not list(checkpoint.glob(f"{TAG}/*_optim_states.pt")):
        raise ValueError(
            f"{checkpoint} has no parts of an optimiser (ZeRO {state['zero_stage']}): with ZeRO 0 any number "
            "of workers goes on with it as it is, and weights alone have none"
        )
    with extracted(checkpoint, output, format=config.to) as made:
        if config.to == "universal":
            make_universal(checkpoint / TAG, made / TAG)
    files = [path for path in output.rglob("*") if path.is_file()]
    return {
        "checkpoint": str(checkpoint),
        "step": state["step"],
        "output": str(output),
        "files": len(files),
        "MB": round(sum(path.stat().st_size for path in files) / 1e6, 1),
    }
