"""`checkpoint inspect`: what an encoder is, before anything is done with it."""

from typing import Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint.begin import open_own_size
from ray_mae.config import CheckpointInspectConfig


def checkpoint_inspect(config: CheckpointInspectConfig) -> dict[str, Any]:
    """Reads an encoder and says what it is and what would be taken of it. Nothing is written.

    Returns:
        Its `family` and `encoder`; of weights of others also what became of every tensor, the licence that
        their files name, how their makers prepare an image, and whether a pretraining can begin with them.

    Raises:
        FileNotFoundError: there is no encoder.
        ValueError: weights of others that cannot be read, with what would do.
    """
    found = open_own_size(config.path)
    if found is None:
        facts = ckpt.encoder_facts(config.path)
        exported = (config.path / ckpt.EXPORTED).is_file()
        return {
            "family": "an encoder exported by ray-mae" if exported else "a checkpoint of ray-mae",
            "encoder": facts.settings.described,
            "spacing_mm": facts.spacing_mm,
        }
    from ray_mae.open_weights.ours import as_ours
    from ray_mae.open_weights.table import report

    pretraining, ours = "can begin with it: --weights", None
    try:
        ours = as_ours(found)
    except ValueError as error:
        pretraining = f"cannot begin with it: {error}"
    prepared = ckpt.encoder_facts(config.path).settings
    seen = f"crops of {prepared.input_size}³ voxels"
    if prepared.dimensions == 2:
        seen = (
            f"{prepared.sight.described}, {prepared.input_size} px, {prepared.sight.interpolation}"
        )
    return {
        **report(found, ours),
        "pool": prepared.default_pool,
        "seen": seen,
        "spacing_mm": found.spacing_mm,
        "pretraining": pretraining,
    }
