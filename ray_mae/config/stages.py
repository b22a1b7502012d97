"""Pretraining in stages: changes to one set of settings, each begun with the weights of the one before."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ray_mae.config.base import to_dict
from ray_mae.config.migrate import FIRST
from ray_mae.config.pretrain import (
    PlanConfig,
    PretrainConfig,
    RunConfig,
    choose_section,
)
from ray_mae.config.sections import EncoderSettings
from ray_mae.config.urls import opened
from ray_mae.config.values import section

OF_ALL = ("output", "weights")
"""Settings that a stage does not have of its own: its folder and what it begins with follow."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Stage:
    """One of several pretrainings."""

    place: int
    """From 1."""
    name: str
    run: Any = None
    """Its settings, a PretrainConfig or a PlanConfig."""

    @property
    def folder(self) -> str:
        """Name of its folder in that of all stages."""
        return f"stage-{self.place}-{self.name}"


@dataclass(frozen=True, kw_only=True)
class StagesConfig:
    """Pretrain in stages, each an own run with a fresh optimiser and schedule.

    It is what a YAML file of `pretrain` with `stages:` becomes. All stages are made, and refused, at once.
    """

    settings: dict[str, Any]
    """What the stages share, by name as in YAML: shards and output, and what else a pretraining has. Its
    `weights` are what the first stage begins with."""
    stages: list[dict[str, Any]]
    """What is other in each stage, by name as in YAML; `name` is how it is called, by default as its
    method. Another method.name has its own defaults. The encoder is that of the stage before."""

    RUN: ClassVar[type[RunConfig]] = PretrainConfig

    def __post_init__(self) -> None:
        if not isinstance(self.stages, (list, tuple)) or not self.stages:
            raise ValueError("stages must be a list of changes to the settings, one of each stage")
        for changes in self.stages:
            if not isinstance(changes, Mapping):
                raise ValueError(f"stages must hold settings by name, got {changes!r}")
        _ = self.runs

    @property
    def output(self) -> Path | None:
        """Folder of all stages."""
        given = self.settings.get("output")
        return None if given is None else opened(given)

    @cached_property
    def runs(self) -> tuple[Stage, ...]:
        """The stages, in turn."""
        stages: list[Stage] = []
        for place, changes in enumerate(self.stages, 1):
            stages.append(self._stage(place, dict(changes), stages[-1] if stages else None))
        return tuple(stages)

    def check_sizes(self) -> None:
        """Raises ValueError, naming settings, where those of a stage do not fit together."""
        for stage in self.runs:
            stage.run.check_sizes()

    def _stage(self, place: int, changes: dict[str, Any], before: Stage | None) -> Stage:
        name = changes.pop("name", None)
        where = f"stages[{place - 1}]" + (f", {name}" if name else "")
        for setting in OF_ALL:
            if setting in changes:
                raise ValueError(
                    f"{where}: {setting} is for all stages and stands beside `stages`, since a stage begins "
                    "with the weights of the one before, in a folder of its own"
                )
        values = merged({"method": FIRST} | self.settings, changes)
        name = str(name or values["method"].get("name", FIRST))
        if not _NAME.fullmatch(name):
            raise ValueError(f"{where}: name must be letters, digits, - and _, got {name!r}")
        try:
            if before:
                values["encoder"] = _encoder_after(before.run.encoder, changes.get("encoder"))
            return Stage(place, name, self._run(values, Stage(place, name).folder, before))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def _run(self, values: dict[str, Any], folder: str, before: Stage | None) -> RunConfig:
        """Its settings, in a folder of its own, from the weights of the one before."""
        for setting in ("shards", "output"):
            if values.get(setting) is None:
                raise ValueError(f"{setting} is missing: give --{setting}")
        assert self.output is not None
        values["output"] = self.output / folder
        if before:
            values["weights"] = before.run.output
        return section(self.RUN, values)


@dataclass(frozen=True, kw_only=True)
class PlanStagesConfig(StagesConfig):
    """Before a pretraining in stages: what each needs. Nothing is trained."""

    RUN: ClassVar[type[RunConfig]] = PlanConfig

    def _run(self, values: dict[str, Any], folder: str, before: Stage | None) -> RunConfig:
        """Its settings; no weights, which are not there before the stages are."""
        values["output"] = self.output and self.output / folder
        if before:
            values.pop("weights", None)
        return section(self.RUN, values)


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings with changes; those of another method or encoder are not mixed with them.

    Args:
        settings: by name, as in YAML.
        changes: the same, of some of them.
    """
    out = {name: _plain(name, value) for name, value in settings.items()}
    for name, value in changes.items():
        before, value = out.get(name), _plain(name, value)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            another = "name" in value and value["name"] != before.get("name")
            value = dict(value) if another else merged(before, value)
        out[name] = value
    return out


def _plain(name: str, value: Any) -> Any:
    """A section as its settings by name."""
    if name in ("method", "encoder") and isinstance(value, str):
        return {"name": value}
    return to_dict(value) if is_dataclass(value) else value


def _encoder_after(before: EncoderSettings, changes: Any) -> EncoderSettings:
    """The encoder of a stage: that of the stage before, in another form where weights allow it."""
    encoder: EncoderSettings = choose_section("encoder", changes or {}, before)
    now, then = to_dict(encoder), to_dict(before)
    for name, value in now.items():
        if name not in before.changeable and then.get(name) != value:
            was = then.get(name, then["name"])
            may = ", ".join(before.changeable) or "no setting"
            raise ValueError(
                f"encoder.{name} cannot be {value}: the stage begins with weights of an encoder whose "
                f"{name} is {was}; {may} may change"
            )
    return encoder
