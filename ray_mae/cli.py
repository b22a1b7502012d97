"""The command line: parse, call one function, print what happened."""

import difflib
import errno
import inspect
import os
import shlex
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from ray_mae import config as settings
from ray_mae.arguments import (
    document_of,
    migrated,
    name_of,
    of_stages,
    of_submit,
    separated,
    value_of,
    with_switches,
)
from ray_mae.cluster.interruption import Interrupted, signals_interrupt
from ray_mae.config.migrate import FIRST
from ray_mae.config.parser import parser_for
from ray_mae.config.pretrain import default_encoder
from ray_mae.extras import explain
from ray_mae.summary import print_summary


def _ingest(config: settings.IngestConfig) -> None:
    from ray_mae.data.ingest.job import ingest

    print_summary(ingest(config))


def _inspect(config: settings.InspectConfig) -> None:
    from ray_mae.evaluate.card.command import inspect

    card = inspect(config)
    shown = (
        "dataset",
        "shards",
        "bytes",
        "splits",
        *(["datasets"] if config.against else []),
        "leaks",
        "flows",
        "quarantined",
        "page",
        "seconds",
    )
    print_summary({name: card[name] for name in shown})


def _pretrain(config: settings.PretrainConfig | settings.StagesConfig) -> None:
    from ray_mae.run import pretrain

    print_summary(pretrain(config))


def _plan(config: settings.PlanConfig | settings.PlanStagesConfig) -> None:
    from ray_mae.train.forecast.command import plan

    plan(config)


def _doctor(config: settings.DoctorConfig) -> None:
    from ray_mae.health.command import doctor

    if doctor(config)["state"] == "problem":
        sys.exit(1)


def _tune(config: settings.TuneConfig) -> None:
    from ray_mae.search.tune import tune

    print_summary(tune(config))


def _tune_report(config: settings.TuneReportConfig) -> None:
    from ray_mae.search.tune import tune_report

    print_summary(tune_report(config))


def _adapt(config: settings.AdaptConfig) -> None:
    from ray_mae.adaptation.command import adapt

    print_summary(adapt(config))


def _benchmark(config: settings.SuiteConfig) -> None:
    from ray_mae.benchmarking.command import benchmark

    print_summary(benchmark(config))


def _benchmark_fit(config: settings.SuiteConfig) -> None:
    from ray_mae.benchmarking.command import benchmark_fit

    print_summary(benchmark_fit(config))


def _benchmark_open(config: settings.SuiteConfig) -> None:
    from ray_mae.benchmarking.command import benchmark_open

    print_summary(benchmark_open(config))


def _benchmark_report(config: settings.SuiteConfig) -> None:
    from ray_mae.benchmarking.command import benchmark_report

    print_summary(benchmark_report(config))


def _checkpoint_list(config: settings.CheckpointListConfig) -> None:
    from ray_mae.checkpoint.commands import checkpoint_list

    print_summary(checkpoint_list(config))


def _checkpoint_inspect(config: settings.CheckpointInspectConfig) -> None:
    from ray_mae.checkpoint.inspect import checkpoint_inspect

    print_summary(checkpoint_inspect(config))


def _checkpoint_verify(config: settings.CheckpointVerifyConfig) -> None:
    from ray_mae.checkpoint.commands import checkpoint_verify

    print_summary(checkpoint_verify(config))


def _checkpoint_convert(config: settings.CheckpointConvertConfig) -> None:
    from ray_mae.checkpoint.commands import checkpoint_convert

    print_summary(checkpoint_convert(config))


def _embed(config: settings.EmbedConfig) -> None:
    from ray_mae.evaluate.embed import embed

    print_summary(embed(config))


def _probe(config: settings.ProbeConfig) -> None:
    from ray_mae.evaluate.probe.command import evaluate_probe

    print_summary(evaluate_probe(config))


def _finetune(config: settings.FinetuneConfig) -> None:
    from ray_mae.evaluate.finetune.command import evaluate_finetune

    print_summary(evaluate_finetune(config))


def _segment(config: settings.SegmentConfig) -> None:
    from ray_mae.evaluate.segment.command import evaluate_segment

    print_summary(evaluate_segment(config))


def _predict(config: settings.PredictConfig) -> None:
    from ray_mae.evaluate.predict.command import predict

    print_summary(predict(config))


def _export(config: settings.ExportConfig) -> None:
    from ray_mae.exports.command import export

    print_summary(export(config))


def _publish(config: settings.PublishConfig) -> None:
    from ray_mae.exports.publish import publish

    print_summary(publish(config))


def demo(config: settings.DemoConfig) -> dict[str, Any]:
    """The whole way on generated studies, by the commands of this file; returns the summary."""
    from ray_mae.demos.studies import demo

    return demo(config, run)


def demo_mdae(config: settings.DemoMdaeConfig) -> dict[str, Any]:
    """The whole way on generated volumes; returns the summary."""
    from ray_mae.demos.volumes import demo_mdae

    return demo_mdae(config, run)


def _submit(config: settings.SubmitConfig) -> None:
    from ray_mae.submit.command import submit

    files: list[Path] = []
    _, command = parsed(config.command, files)
    sys.exit(submit(config, command, files))


COMMANDS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "demo mdae": (settings.DemoMdaeConfig, demo_mdae),  # before `demo`, with which it begins
    "demo": (settings.DemoConfig, demo),
    "ingest": (settings.IngestConfig, _ingest),
    "inspect": (settings.InspectConfig, _inspect),
    "doctor": (settings.DoctorConfig, _doctor),
    "plan": (settings.PlanConfig, _plan),
    "pretrain": (settings.PretrainConfig, _pretrain),
    "checkpoint list": (settings.CheckpointListConfig, _checkpoint_list),
    "checkpoint inspect": (settings.CheckpointInspectConfig, _checkpoint_inspect),
    "checkpoint verify": (settings.CheckpointVerifyConfig, _checkpoint_verify),
    "checkpoint convert": (settings.CheckpointConvertConfig, _checkpoint_convert),
    "tune report": (settings.TuneReportConfig, _tune_report),  # before `tune`, as above
    "tune": (settings.TuneConfig, _tune),
    "adapt": (settings.AdaptConfig, _adapt),
    "benchmark fit": (settings.SuiteConfig, _benchmark_fit),  # before `benchmark`, as above
    "benchmark open": (settings.SuiteConfig, _benchmark_open),
    "benchmark report": (settings.SuiteConfig, _benchmark_report),
    "benchmark": (settings.SuiteConfig, _benchmark),
    "evaluate probe": (settings.ProbeConfig, _probe),
    "evaluate finetune": (settings.FinetuneConfig, _finetune),
    "evaluate segment": (settings.SegmentConfig, _segment),
    "embed": (settings.EmbedConfig, _embed),
    "predict": (settings.PredictConfig, _predict),
    "export": (settings.ExportConfig, _export),
    "publish": (settings.PublishConfig, _publish),
    "submit": (settings.SubmitConfig, _submit),
}


CHOSEN: dict[str, str] = {"pretrain": "", "plan": "", "tune": "run.", "adapt": "run."}
"""Commands whose settings depend on the method and the encoder, and what stands before their names."""


STAGED: dict[str, type[settings.StagesConfig]] = {
    "pretrain": settings.StagesConfig,
    "plan": settings.PlanStagesConfig,
}
"""Commands whose YAML file may have `stages:`."""


def parser_of(command: str, cls: type | None = None) -> ArgumentParser:
    """The parser of one command: --config FILE and every setting of `cls` by its dotted name."""
    return parser_for(cls or COMMANDS[command][0], f"ray-mae {command}")


def run(arguments: list[str]) -> None:
    """Run one command in this process. Raises what the command raises."""
    *words, last = arguments or ["--help"]
    if last in ("-h", "--help") and words not in map(str.split, COMMANDS) and _group(words):
        print(_usage(words))
        return
    name, config = parsed(arguments)
    COMMANDS[name][1](config)


def parsed(arguments: list[str], files: list[Path] | None = None) -> tuple[str, Any]:
    """The name of a command and its settings.

    Args:
        arguments: the words after `ray-mae`.
        files: a list to which the files are added that settings were read from.

    Raises:
        ValueError: with one line of what is wrong.
    """
    files = [] if files is None else files
    name = _command(arguments)
    cls = COMMANDS[name][0]
    rest = arguments[len(name.split()) :]
    if name == "submit":
        rest = of_submit(rest)
    if name in CHOSEN:
        return name, _chosen(name, cls, rest, files)
    if name != "submit":
        rest = with_switches(rest, cls)
    parser = parser_of(name, cls)
    return name, cls(**_values(parser, rest, files))


def _values(parser: ArgumentParser, arguments: list[str], files: list[Path]) -> dict[str, Any]:
    """What the words say, by name; the files that were read, relative where they were named so."""
    read = parser.parse_args(arguments)
    sections = [path for key, path in read.items() if key.endswith("__path__")]
    for path in filter(None, [*(read.get("config") or []), *sections]):
        named = Path(path.relative)  # to the folder of the file that names it
        files.append(named if named.is_absolute() else Path(os.path.relpath(path.cwd), named))
    values: dict[str, Any] = parser.instantiate(read).as_dict()
    values.pop("config", None)
    return values


def _chosen(command: str, cls: type, arguments: list[str], files: list[Path]) -> Any:
    """The settings of a command that has those of a method and an encoder, chosen by name."""
    from ray_mae.encoders.registry import ENCODERS
    from ray_mae.methods.registry import METHODS, as_general, config_class

    lead = CHOSEN[command]
    arguments = separated(arguments)
    document = document_of(arguments)
    if command in STAGED and "stages" in document and not {"-h", "--help"} & {*arguments}:
        files.append(Path(arguments[arguments.index("--config") + 1]))
        return STAGED[command](**of_stages(arguments, document))
    section = (document.get("run") or {}) if lead else document
    method = name_of(arguments, f"{lead}method.name", section.get("method"), FIRST)
    words = migrated(arguments, document, method, lead)
    if words != arguments and document:  # its text stands in the place of the file's name
        files.append(Path(arguments[arguments.index("--config") + 1]))
    arguments = words
    encoder = name_of(arguments, f"{lead}encoder.name", section.get("encoder"), None)
    default = None
    if not {"-h", "--help"} & {*arguments}:
        weights = value_of(arguments, f"{lead}weights", section.get("weights"))
        output = None if lead else value_of(arguments, "output", document.get("output"))
        default = default_encoder(METHODS[method](), weights, output)  # type: ignore[call-arg]
    specific: Any = config_class(cls, method, encoder, default)
    parser = parser_of(command, specific)
    for action in parser._actions:
        for registry in (METHODS, ENCODERS):
            if action.dest == f"{lead}{registry.setting}":
                action.metavar = "{" + ",".join(registry) + "}"
    return as_general(specific(**_values(parser, arguments, files)))


def _command(arguments: list[str]) -> str:
    for name in COMMANDS:
        words = name.split()
        if arguments[: len(words)] == words:
            return name
    group = arguments[:1] if _group(arguments[:1]) else []
    if group == arguments:
        raise ValueError(f"{group[0]} is several commands\n{_usage(group)}")
    unknown = " ".join(arguments[: len(group) + 1])
    close = difflib.get_close_matches(unknown, COMMANDS, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"there is no command '{unknown}'{hint}\n{_usage(group)}")


def _group(words: list[str]) -> list[str]:
    """The commands that begin with these words: all for none."""
    return [name for name in COMMANDS if name.split()[: len(words)] == words]


_GOES_ON = {
    "ingest": "shards that are complete stay, and the same command writes the others",
    "pretrain": "the same command",
    "tune": "with --resume true the search goes on",
    "adapt": "pretrainings that are complete stay, and the same command goes on",
    "benchmark": "fits that are complete stay, and the same command goes on",
}
"""How a command that was ended by a signal goes on, where something is left to go on with."""


def _after(arguments: list[str]) -> str:
    """What to do after a signal has ended a command."""
    command = shlex.join(["ray-mae", *arguments])
    if arguments and arguments[0] == "tune" and "--resume" not in arguments:
        command += " --resume true"
    goes_on = _GOES_ON.get(arguments[0] if arguments else "")
    return (
        f"{goes_on or 'nothing is left to go on with, so the same command begins anew'}: {command}"
    )


def _remedy(error: Exception) -> str:
    """What helps against an error of the operating system, where it does not say so itself."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "; what was there before is whole: make room, and start the same command again"
    return ""


def _usage(words: list[str]) -> str:
    """The commands that begin with these words."""
    lines = ["usage: ray-mae COMMAND [--config FILE] [--SETTING VALUE …]", ""]
    for name in _group(words):
        lead = f"  {name:<{max(map(len, COMMANDS))}}  "
        first = inspect.cleandoc(COMMANDS[name][0].__doc__ or "").partition("\n\n")[0]
        lines.append(
            textwrap.fill(first, 110, initial_indent=lead, subsequent_indent=" " * len(lead))
        )
    return "\n".join([*lines, "", "ray-mae COMMAND --help lists every setting with its default."])


def main() -> None:
    """Entry point of `ray-mae`: exit code 0, or one clear line and 1; of a signal see `CODES`."""
    arguments = sys.argv[1:]
    try:
        with signals_interrupt():
            run(arguments)
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("RAY_MAE_TRACEBACK"):
            raise
        print(f"ray-mae: {error}{_remedy(error)}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        text = explain(error)
        if text is None or os.environ.get("RAY_MAE_TRACEBACK"):
            raise
        print(f"ray-mae: {text}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as stopped:
        print(f"ray-mae: {stopped}; {_after(arguments)}", file=sys.stderr)
        sys.exit(stopped.code)
