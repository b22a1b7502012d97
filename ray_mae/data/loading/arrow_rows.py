"""Rows of an Arrow table as plain Python values, but for bytes: they stay where they are."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from ray_mae.data.schema import Row


def rows_of(table: pa.Table) -> list[Row]:
    """The rows as of `Table.to_pylist`, their binary cells as views of the table's memory.

    Of a volume the copy would take as long as reading it.
    """
    columns = [_cells(_whole(column)) for column in table.columns]
    return [
        dict(zip(table.column_names, cells, strict=True)) for cells in zip(*columns, strict=True)
    ]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _cells(array: pa.Array) -> list[Any]:
    kind = array.type
    if pa.types.is_large_binary(kind) and len(array):
        _, ends, content = array.buffers()
        places = np.frombuffer(ends, np.int64)[array.offset :][: len(array) + 1].tolist()
        view = memoryview(content or b"")
        cells = [view[start:end] for start, end in pairwise(places)]
        missing = array.is_null().to_pylist() if array.null_count else [False] * len(array)
        return [None if no else cell for cell, no in zip(cells, missing, strict=True)]
    if pa.types.is_struct(kind) and not array.null_count:
        names = [field.name for field in kind]
        fields = [_cells(field) for field in array.flatten()]
        return [dict(zip(names, cells, strict=True)) for cells in zip(*fields, strict=True)]
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type) and not array.null_count:
        values, sizes = _cells(array.flatten()), array.value_lengths().to_pylist()
        ends = np.cumsum(sizes).tolist()
        return [values[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    return array.to_pylist()
