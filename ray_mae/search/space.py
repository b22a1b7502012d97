"""What is searched: settings of a run by their dotted names, each with a distribution."""

import difflib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_mae.config.base import flatten

if TYPE_CHECKING:
    import optuna

KINDS = ("uniform", "loguniform", "int", "logint", "choice", "grid")


@dataclass(frozen=True)
class Parameter:
    """One searched setting."""

    name: str
    """Dotted name; `name[0]` is the first value of a pair."""
    kind: str
    values: tuple[Any, ...]
    """Low and high, or every value of a choice or a grid."""
    step: float | None = None
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """Other parameters and their values with which this one matters."""

    def matters(self, others: Mapping[str, Any]) -> bool:
        """Returns whether the parameters that it depends on have the values it asks for."""
        return all(
            other in others and category(others[other]) in map(category, values)
            for other, values in self.when
        )

    def suggest(self, trial: "optuna.Trial") -> Any:
        """Returns a value by Optuna's sampler."""
        if self.kind in ("choice", "grid"):
            categories = [category(v) for v in self.values]
            return self.values[categories.index(trial.suggest_categorical(self.name, categories))]
        low, high = self.values
        log = self.kind.startswith("log")
        if self.kind.endswith("int"):
            return trial.suggest_int(self.name, low, high, step=int(self.step or 1), log=log)
        return trial.suggest_float(self.name, low, high, step=self.step, log=log)


def category(value: Any) -> Any:
    """Returns a value as a category that Optuna can store: plain ones as they are, others as JSON."""
    return (
        value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)
    )


def read_space(space: Mapping[str, Any]) -> list[Parameter]:
    """Returns the parameters in an order in which each comes after those it depends on.

    Args:
        space: distributions by dotted name, as `TuneConfig.space` has them.

    Raises:
        ValueError: A distribution cannot be read, with its name and what is wrong.
    """
    if not space:
        raise ValueError(
            "space is empty: name settings to search, such as method.mask_ratio: {uniform: [0.5, 0.95]}"
        )
    parameters = {name: _parameter(name, spec) for name, spec in space.items()}
    for parameter in parameters.values():
        for other, values in parameter.when:
            _check_when(parameter.name, other, values, parameters)
    ordered: list[Parameter] = []
    while len(ordered) < len(parameters):
        names = {p.name for p in ordered}
        ready = [
            p
            for p in parameters.values()
            if p.name not in names and all(other in names for other, _ in p.when)
        ]
        if not ready:
            circle = ", ".join(n for n in parameters if n not in names)
            raise ValueError(f"space: {circle} depend on each other in a circle")
        ordered += ready
    return ordered


def _parameter(name: str, spec: Any) -> Parameter:
    where = f"space.{name}"
    if not isinstance(spec, Mapping):
        raise ValueError(f"{where} must be such as {{uniform: [0.5, 0.95]}}, got {spec!r}")
    kinds = [k for k in spec if k in KINDS]
    unknown = [k for k in spec if k not in (*KINDS, "step", "when")]
    if len(kinds) != 1 or unknown:
        raise ValueError(
            f"{where} must have one of {', '.join(KINDS)}, and perhaps step and when; got "
            f"{', '.join(map(str, spec)) or 'nothing'}"
        )
    kind = kinds[0]
    values, step = spec[kind], spec.get("step")
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"{where}: {kind} must be a list of values, got {values!r}")
    if kind in ("choice", "grid"):
        if len({category(v) for v in values}) < len(values):
            raise ValueError(f"{where}: {kind} holds a value twice: {values}")
        if step is not None:
            raise ValueError(f"{where}: a {kind} has no step")
    else:
        values = _range(where, kind, values, step)
    when = spec.get("when") or {}
    if not isinstance(when, Mapping):
        raise ValueError(
            f"{where}: when must be {{other.setting: value or [values]}}, got {when!r}"
        )
    conditions = tuple(
        (other, tuple(value) if isinstance(value, (list, tuple)) else (value,))
        for other, value in when.items()
    )
    if reserved := next((r for r in _RESERVED if name == r or name.startswith(r)), None):
        raise ValueError(
            f"{where}: a search sets {reserved.rstrip('.')} itself, or needs it the same"
        )
    return Parameter(name, kind, tuple(values), step, conditions)


_RESERVED = (
    *("checkpoint.", "probe.", "scaling.", "tracking.", "method.name", "encoder.name"),
    *("shards", "shares", "output"),
)
"""Settings that a search gives its trials, or without which they would not compare."""


def _check_when(
    name: str, other: str, values: tuple[Any, ...], parameters: dict[str, Parameter]
) -> None:
    """Raises ValueError where the condition can never hold."""
    where = f"space.{name}: when"
    if other not in parameters:
        raise ValueError(f"{where} names {other}, which is not in space")
    if parameters[other].kind not in ("choice", "grid"):
        raise ValueError(f"{where} names {other}, which is no choice and no grid")
    categories = [category(v) for v in parameters[other].values]
    for value in values:
        if category(value) not in categories:
            raise ValueError(
                f"{where} wants {other} to be {value}, which is none of its values: "
                f"{', '.join(map(str, parameters[other].values))} (a list as a value is written [[a, b]])"
            )


def _range(where: str, kind: str, values: Any, step: Any) -> tuple[Any, Any]:
    number: Any = int if kind.endswith("int") else float
    try:
        low, high = (number(v) for v in values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: {kind} must be [low, high], two numbers, got {values}"
        ) from error
    if number is int and any(float(v) != int(v) for v in values):
        raise ValueError(f"{where}: {kind} must be two whole numbers, got {list(values)}")
    if low >= high:
        raise ValueError(f"{where}: {kind} must be [low, high], low first, got {list(values)}")
    if step is not None and (isinstance(step, (str, bool)) or not 0 < step <= high - low):
        raise ValueError(f"{where}: step must be above 0 and at most {high - low:g}, got {step!r}")
    if kind.startswith("log") and low <= 0:
        raise ValueError(f"{where}: {kind} must be above 0, got {low:g}")
    if kind.startswith("log") and step is not None:
        raise ValueError(f"{where}: {kind} has no step")
    return low, high


def suggest(parameters: list[Parameter], trial: "optuna.Trial") -> dict[str, Any]:
    """Returns values by Optuna's sampler, of the parameters that matter."""
    values: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.matters(values):
            values[parameter.name] = parameter.suggest(trial)
    return values


def grid(parameters: list[Parameter]) -> list[dict[str, Any]]:
    """Returns every point of the grids, each once; none without a grid. Other parameters are left open."""
    gridded = [p for p in parameters if p.kind == "grid"]
    points: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*(p.values for p in gridded)):
        point: dict[str, Any] = {}
        for parameter, value in zip(gridded, values, strict=True):
            free = {o for o, _ in parameter.when} - {p.name for p in gridded}
            if free or parameter.matters(point):
                point[parameter.name] = value
        points[json.dumps(point)] = point
    return list(points.values()) if gridded else []


def with_values(run: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings with some of them changed.

    Args:
        run: nested settings.
        values: new ones by dotted name.

    Raises:
        ValueError: A run has no setting of that name.
    """
    settings = json.loads(json.dumps(run))
    for name, value in values.items():
        *path, last = name.split(".")
        section = settings
        for key in path:
            section = section.get(key) if isinstance(section, dict) else None
        pair = re.fullmatch(r"(\w+)\[(\d)\]", last)
        key = pair[1] if pair else last
        if not isinstance(section, dict) or isinstance(section.get(key, {}), dict):
            raise ValueError(f"space.{name}: a run has no setting of that name{_hint(run, name)}")
        if pair is None:
            section[last] = value
        elif isinstance(section[pair[1]], list) and int(pair[2]) < len(section[pair[1]]):
            section[pair[1]][int(pair[2])] = value
        else:
            raise ValueError(f"space.{name}: {pair[1]} does not hold so many values")
    return settings


def _hint(run: dict[str, Any], name: str) -> str:
    close = difflib.get_close_matches(name, flatten(run), 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def short_name(name: str) -> str:
    """Returns the last part of a dotted name: enough for a person beside the others."""
    return name.split(".")[-1]


def describe(values: Mapping[str, Any]) -> str:
    """Returns settings of a trial on one line."""
    return ", ".join(f"{short_name(name)} {describe_value(v)}" for name, v in values.items())


def describe_value(value: Any) -> str:
    """Returns a value as charts and tables show it; a pair of equal ends reads as one number."""
    if isinstance(value, (list, tuple)):
        parts = list(map(describe_value, value))
        return parts[0] if len(set(parts)) == 1 else "–".join(parts)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
