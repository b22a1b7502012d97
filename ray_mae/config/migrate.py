"""Settings of earlier versions, read as those of today."""

from collections.abc import Mapping
from typing import Any

_VIT = ("preset", "image_size", "patch_size", "width", "depth", "heads", "qk_norm", "positions")
_RESENC = ("preset", "crop_size", "film")
_VOLUMES = ("mirror", "rotate_share", "scale_share", "scale_range")

FIRST = "mvmae"
"""The method of files that name none: once there was no other, and it is the default still."""
_ENCODERS = {"mvmae": "vit", "mdae": "resenc"}
"""The encoder of each method, when its settings stood among the method's."""

MOVED: dict[str, dict[str, str]] = {
    # 0.1: the settings of the network stood among the method's
    "mvmae": {f"method.{name}": f"encoder.{name}" for name in _VIT},
    "mdae": {f"method.{name}": f"encoder.{name}" for name in _RESENC}
    | {f"method.{name}": f"data.{name}" for name in _VOLUMES},
    "simmim3d": {"method.block_size": "method.mask_size"},
}
"""Dotted names of settings, before and now, by method."""


RENAMED = {"simmim3d": ("simmim", "resenc")}
"""Methods that were one with another for a kind of their own: what they are now, and the encoder they had."""


def moved(name: str, method: str) -> str:
    """Returns what a setting of a run is called now; `[0]` of a pair stays with its name.

    Args:
        name: dotted name, of this version or before.
        method: name of the method.
    """
    bare, bracket, rest = name.partition("[")
    return MOVED.get(method, {}).get(bare, bare) + bracket + rest


def migrate(
    values: Mapping[str, Any], method: str | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The nested settings of a run in today's form.

    Args:
        values: of a run, or of a search with the run's under `run`, as YAML or JSON had them.
        method: its name, where a flag chose another one than the values do.

    Returns:
        The settings, and the dotted names that changed: before → now. Nothing changes in what is of
        today.
    """
    if isinstance(values.get("run"), Mapping):
        run, changed = migrate(values["run"], method)
        new = {**values, "run": run}
        method = method or _method(run)
        if isinstance(values.get("space"), Mapping):
            new["space"] = {
                moved(name, method): _when(spec, method) for name, spec in values["space"].items()
            }
            changed |= {
                f"{name}": moved(name, method)
                for name in values["space"]
                if moved(name, method) != name
            }
        return new, changed
    new = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()
    }
    changed = {}
    for before, now in MOVED.get(method or _method(values), {}).items():
        section, name = before.split(".")
        if name in (new.get(section) or {}):
            target, new_name = now.split(".")
            value = new[section].pop(name)
            new.setdefault(target, {})
            new[target].setdefault(new_name, value)
            changed[before] = now
    if _method(new) in RENAMED:
        name, encoder = RENAMED[_method(new)]
        changed[f"method.name {new['method']['name']}"] = f"method.name {name}"
        new["method"]["name"] = name
        new["encoder"] = {"name": encoder, **(new.get("encoder") or {})}
    return new, changed


def migrate_exported(values: Mapping[str, Any]) -> dict[str, Any]:
    """The sections `encoder` and `data` of an exported encoder, which 0.1 wrote as a method's settings."""
    if "encoder" in values:
        return dict(values)
    new, _ = migrate({"method": values})
    new["encoder"] = {"name": _ENCODERS[_method(new)], **new.get("encoder", {})}
    return new


def describe_changes(changed: Mapping[str, str], where: str) -> str:
    """Returns one line that says what settings are called now.

    Args:
        changed: dotted names, before → now.
        where: the file or command that has the old names.
    """
    names = ", ".join(f"{before} is {now} now" for before, now in changed.items())
    return f"{where} has settings of an earlier version, which are still read: {names}"


def _method(values: Mapping[str, Any]) -> str:
    """Its name; there was one alone before names were written down."""
    method = values.get("method")
    return str(method.get("name", FIRST)) if isinstance(method, Mapping) else FIRST


def _when(spec: Any, method: str) -> Any:
    """The distribution of a searched setting, whose `when` names others."""
    if isinstance(spec, Mapping) and isinstance(spec.get("when"), Mapping):
        return {**spec, "when": {moved(name, method): v for name, v in spec["when"].items()}}
    return spec
