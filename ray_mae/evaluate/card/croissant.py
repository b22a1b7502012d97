"""croissant.json: a data set's shards for data catalogues, by Croissant 1.1 (MLCommons).

It lists files, checksums and columns, and no row: shards hold patients.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from ray_mae.data.parquet import open_parquet
from ray_mae.data.schema import NOUNS, SPLITS, Manifest

FILE = "croissant.json"
_PARQUET = "application/x-parquet"
_SET = "shards"

_JSON, _LANGUAGE = "@json", {"@container": "@language"}
_TERMS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileProperty fileObject fileSet "
    "format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex "
    "repeated replace samplingRate separator source subField transform"
).split()
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": _JSON},
    "examples": {"@id": "cr:examples", "@type": _JSON},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "name": _LANGUAGE,
    "description": _LANGUAGE,
    **{term: f"cr:{term}" for term in _TERMS},
}
"""As the specification of 1.1 gives it."""


def croissant(shards: Path, manifest: Manifest) -> dict[str, Any]:
    """Returns the description of a folder of shards, in which it will lie.

    Args:
        shards: folder that `ingest` wrote.
        manifest: of the shards.
    """
    with open_parquet(shards / manifest.shards[0].file) as file:
        schema = file.schema_arrow
    noun = NOUNS[manifest.kind]
    counts = ", ".join(f"{split} {manifest.rows(split):,}" for split in SPLITS)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": manifest.dataset,
        "description": f"{noun.capitalize()} as ray_mae ingested them, a row each: {counts}. Nested columns "
        "(views, voxels, labels) are described by ray_mae.data.schema.",
        "version": f"{manifest.schema_version}.0.0",
        "license": "restricted",
        "isLiveDataset": False,
        "rai:personalSensitiveInformation": "Medical images of patients under pseudonyms; perhaps reports. "
        "Not to be passed on.",
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": _SET,
                "name": _SET,
                "encodingFormat": _PARQUET,
                "includes": [f"{split}-*.parquet" for split in SPLITS if manifest.of_split(split)],
            },
            *(
                {
                    "@type": "cr:FileObject",
                    "@id": shard.file,
                    "name": shard.file,
                    "contentUrl": shard.file,
                    "contentSize": f"{shard.bytes} B",
                    "encodingFormat": _PARQUET,
                    "sha256": shard.sha256,
                }
                for shard in manifest.shards
            ),
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": noun,
                "name": noun,
                "field": [_field(noun, column) for column in schema if _type(column) is not None],
            }
        ],
    }


def _type(column: pa.Field) -> str | None:
    """Croissant's name of a column's type; None of lists, structures and bytes."""
    kinds = {
        "sc:Text": pa.types.is_string,
        "sc:Integer": pa.types.is_integer,
        "sc:Float": pa.types.is_floating,
    }
    return next((name for name, is_of in kinds.items() if is_of(column.type)), None)


def _field(noun: str, column: pa.Field) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{noun}/{column.name}",
        "name": column.name,
        "dataType": _type(column),
        "source": {"fileSet": {"@id": _SET}, "extract": {"column": column.name}},
    }
