"""The methods by name: one line each. Other packages add theirs by the entry point `ray_mae.methods`."""

from collections.abc import Mapping
from dataclasses import field, fields, make_dataclass
from typing import Any, TypeVar

from ray_mae.config.base import from_dict
from ray_mae.config.migrate import FIRST, migrate
from ray_mae.config.pretrain import PretrainConfig, RunConfig
from ray_mae.config.registry import Registry
from ray_mae.config.search import TuneConfig
from ray_mae.config.sections import DATA, EncoderSettings, MethodSettings, OptimConfig
from ray_mae.encoders.registry import ENCODERS

METHODS: Registry[MethodSettings] = Registry(
    "method.name",
    {
        "mvmae": "ray_mae.methods.mvmae.settings:MvmaeSettings",
        "mdae": "ray_mae.methods.mdae.settings:MdaeSettings",
        "mae": "ray_mae.methods.mae.settings:MaeSettings",
        "simmim": "ray_mae.methods.simmim.settings:SimmimSettings",
        "rmae": "ray_mae.methods.rmae.settings:RmaeSettings",
        "ganmae": "ray_mae.methods.ganmae.settings:GanmaeSettings",
        "videomac": "ray_mae.methods.videomac.settings:VideomacSettings",
        "dino": "ray_mae.methods.dino.settings:DinoSettings",
        "simclr": "ray_mae.methods.simclr.settings:SimclrSettings",
        "voco": "ray_mae.methods.voco.settings:VocoSettings",
        "volumefusion": "ray_mae.methods.volumefusion.settings:VolumefusionSettings",
        "supervised": "ray_mae.methods.supervised.settings:SupervisedSettings",
    },
    group="ray_mae.methods",
)

C = TypeVar("C")


def config_class(
    cls: type[C],
    method: str,
    encoder: str | None = None,
    default: EncoderSettings | None = None,
) -> type[C]:
    """Returns a subclass of a command's settings whose sections are those of a method and an encoder.

    It is what the command line and YAML files are read by: with every setting's type, bounds, default and
    description. `as_general` makes the general class of it again.

    Args:
        cls: PretrainConfig, PlanConfig, or TuneConfig, whose run has the sections.
        method: name of the method.
        encoder: name of the encoder; None is the method's own, or that of `default`.
        default: settings of the encoder where none are given; None are the method's.

    Raises:
        ValueError: for names that nobody has registered.
    """
    if "run" in {f.name for f in fields(cls)}:  # type: ignore[arg-type]
        run = config_class(RunConfig, method, encoder, default)
        sections: list[tuple[str, type, Any]] = [("run", run, field(default_factory=run))]
    else:
        settings = METHODS[method]
        chosen = settings()  # type: ignore[call-arg]
        own = default or chosen.default_encoder()
        network: Any = type(own) if encoder is None else ENCODERS[encoder]
        given = own if type(own) is network else network()
        data = DATA[given.kind]
        sections = [
            ("method", settings, field(default_factory=settings)),
            (
                "encoder",
                network,
                field(default_factory=lambda: given),
            ),
            ("data", data, field(default_factory=data)),
            ("optim", OptimConfig, field(default_factory=lambda: chosen.default_optim(given))),
        ]
    specific = make_dataclass(
        cls.__name__,
        sections,
        bases=(cls,),
        namespace={"COMPLETES": ()},  # the sections have their types
        frozen=True,
        kw_only=True,
    )
    specific.__doc__ = cls.__doc__
    return specific


def as_general(config: C) -> C:
    """Returns the same settings as the general class that `config_class` began with."""
    general: Any = type(config).__mro__[1]
    values = {f.name: getattr(config, f.name) for f in fields(config)}  # type: ignore[arg-type]
    if "run" in values:
        values["run"] = as_general(values["run"])
    return general(**values)


def run_of(values: Mapping[str, Any]) -> PretrainConfig:
    """Returns settings of a pretraining from what `to_dict` wrote of them, in this version or before."""
    return _read(PretrainConfig, values)


def search_of(values: Mapping[str, Any]) -> TuneConfig:
    """Returns settings of a search from what `to_dict` wrote of them, in this version or before."""
    return _read(TuneConfig, values)


def _read(cls: type[C], values: Mapping[str, Any]) -> C:
    new, _ = migrate(values)
    run = new.get("run", new)
    method, encoder = run["method"].get("name", FIRST), run.get("encoder", {}).get("name")
    return as_general(from_dict(config_class(cls, method, encoder), new))
