"""predictions.parquet: what was said of each held-out sample, so that others can compute what they want."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit

from ray_mae.data.paths import atomic_write
from ray_mae.evaluate.metrics import FloatArray

FILE = "predictions.parquet"


class Predictions:
    """A file with one row per sample, label and model, as long as it is open.

    Columns are the identifier (study_id or volume_id), patient_id, split, what names the model, label,
    probability, logit, by which samples are ranked (probabilities near 0 and 1 may be the same number), and
    target: 0, 1 or null where the label is not known or not counted.

    Args:
        folder: it is written to; predictions.parquet appears when the block ends well.
        identifier: name of the first column.
        model: names of the columns that name a model, all of them texts or whole numbers.
    """

    def __init__(self, folder: Path, identifier: str, model: Mapping[str, pa.DataType]) -> None:
        names = pa.dictionary(pa.int32(), pa.string())
        self._schema = pa.schema(
            [
                (identifier, pa.string()),
                ("patient_id", pa.string()),
                ("split", names),
                *model.items(),
                ("label", names),
                ("probability", pa.float32()),
                ("logit", pa.float64()),
                ("target", pa.float32()),
            ]
        )
        self.path = folder / FILE

    def __enter__(self) -> "Predictions":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            file = stack.enter_context(atomic_write(self.path, self.path.parent))
            self._writer = stack.enter_context(
                pq.ParquetWriter(file, self._schema, compression="zstd")
            )
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def add(
        self,
        sample: NDArray,
        patient: NDArray,
        split: NDArray,
        label: str,
        logits: FloatArray,
        target: FloatArray,
        **model: str | int,
    ) -> None:
        """Adds what a model says of a label of some samples, all arrays [S]; those without are left out.

        Args:
            sample: identifiers.
            patient: pseudonyms.
            split: train, val or test.
            label: name.
            logits: NaN where there is none.
            target: 0, 1, or NaN where unknown.
            model: values of the columns that name the model.
        """
        there = ~np.isnan(logits)
        rows = int(there.sum())
        columns = [
            *(sample[there], patient[there], split[there]),
            *(np.full(rows, value) for value in model.values()),
            *(np.full(rows, label), expit(logits[there]), logits[there], target[there]),
        ]
        arrays = [
            pa.array(column.tolist(), field.type, from_pandas=True)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
