"""DeepSpeed's partitioned checkpoint → its universal one, which any number of workers reads."""

import contextlib
import io
from argparse import Namespace
from pathlib import Path

FAMILIES = {0: "0", 1: "1 or 2", 2: "1 or 2", 3: "3"}
"""ZeRO stages whose optimiser states can be read by one another, in words."""


def make_universal(checkpoint: Path, output: Path) -> None:
    """Write the parts in `checkpoint` (the folder of DeepSpeed's own files) as one whole to `output`.

    `output` must be empty, or not there. Holds one parameter with its moments in memory at a time.
    """
    from deepspeed.checkpoint import ds_to_universal

    output.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):  # a page of lines and bars
        ds_to_universal.main(
            Namespace(
                input_folder=str(checkpoint),
                output_folder=str(output),
                num_extract_workers=1,
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,  # of models that are not Megatron's
            )
        )
