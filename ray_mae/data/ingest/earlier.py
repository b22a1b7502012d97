"""What an output folder was ingested with, so that other settings do not write its shards anew unasked."""

import json
import os
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ray_mae.config import IngestConfig
from ray_mae.config.base import flatten, from_dict, to_dict
from ray_mae.data.ingest.shards import RESULTS, ShardPlan, noted_plan
from ray_mae.data.paths import atomic_write, list_folder
from ray_mae.data.privacy.pseudonyms import pseudonym

FILE = "settings.json"
_KEY, _VERSION = "key", "version"
_FREE_TO_CHANGE = frozenset({"output", "overwrite", "stores", "pseudonym_key", "names.reviewed"})
"""Settings that change no shard, or are to change: decisions on reports. The key is compared by what it
gives."""


def check_settings(config: IngestConfig, key: bytes) -> None:
    """Raise ValueError where the output holds shards of other settings, unless `overwrite` says so.

    Args:
        config: of the ingest, its paths absolute.
        key: of the pseudonyms.
    """
    notes = config.output / RESULTS
    if config.overwrite or not _has_shards(notes):
        return
    try:
        earlier = json.loads((notes / FILE).read_text())
    except FileNotFoundError:  # of an earlier version: see `check_plans`
        return
    same_key = earlier.pop(_KEY) == _key_check(key)
    # another version may read the same files otherwise
    same_version = earlier.pop(_VERSION) == version("ray-mae")
    # through the schema, so that a setting that came later has its default in an older folder, too
    before, now = (flatten(_plain(c)) for c in (from_dict(IngestConfig, earlier), config))
    changed = [
        name
        for name in now
        if name not in _FREE_TO_CHANGE and _comparable(before.get(name)) != _comparable(now[name])
    ]
    if not same_key and "insecure_pseudonyms" not in changed:
        changed.append("pseudonym_key")
    if not same_version:
        changed.append("version of ray_mae")
    if changed:
        raise ValueError(
            f"{config.output} holds shards of other settings ({', '.join(changed)}): choose another "
            "--output, or the same settings to go on; --overwrite true writes them anew, for which no run "
            "may be reading them"
        )


def check_plans(config: IngestConfig, plans: Iterable[ShardPlan]) -> None:
    """The same for a folder that does not say its settings: no shard may be planned otherwise than it is.

    Args:
        config: of the ingest.
        plans: what it is about to write.
    """
    notes = config.output / RESULTS
    if config.overwrite or not _has_shards(notes) or (notes / FILE).is_file():
        return
    noted = [(noted_plan(plan.file, config.output), plan.fingerprint()) for plan in plans]
    other = sum(before is not None and before != now for before, now in noted)
    if other or not any(before for before, _ in noted):
        raise ValueError(
            f"{config.output} holds shards of an earlier version, which did not keep its settings, and "
            f"{other or 'all'} of them would be written anew: choose another --output; --overwrite true goes "
            "on, for which no run may be reading them"
        )


def write_settings(config: IngestConfig, key: bytes) -> None:
    """Note the settings, for the owner of the folder alone."""
    notes = config.output / RESULTS
    values = _plain(config) | {_KEY: _key_check(key), _VERSION: version("ray-mae")}
    with atomic_write(notes / FILE, notes, private=True) as file:
        file.write_text(json.dumps(values, indent=1) + "\n")


def _comparable(value: Any) -> Any:
    """One text for all ways to write a path or a URL."""
    if isinstance(value, str) and value[:1] == "/":
        return os.path.realpath(value)
    return re.sub(r"^([a-z][a-z0-9+.-]+):/+", r"\1://", value) if isinstance(value, str) else value


def _plain(config: IngestConfig) -> dict[str, Any]:
    """The settings as JSON holds them; a URL is no `Path`."""
    plain: dict[str, Any] = json.loads(json.dumps(to_dict(config), default=str))
    return plain


def _key_check(key: bytes) -> str:
    """Tells one key from another, and does not say what it is."""
    return pseudonym(key, "key", "")


def _has_shards(notes: Path) -> bool:
    """Whether a shard was finished."""
    try:
        return any(name.endswith(".parquet.json") for name, _ in list_folder(notes))
    except FileNotFoundError:
        return False
