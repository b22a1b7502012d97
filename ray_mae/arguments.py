"""Words of a command line in the one form that its parser reads, and what its YAML file chooses."""

import json
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from ray_mae.config.migrate import describe_changes, migrate, moved
from ray_mae.config.stages import OF_ALL, merged


def separated(arguments: list[str]) -> list[str]:
    """--name=value as two words."""
    return [w for a in arguments for w in (a.split("=", 1) if a.startswith("--") else [a])]


def document_of(arguments: list[str]) -> dict[str, Any]:
    """What the YAML file holds that the flags name; empty where there is none."""
    if "--config" not in arguments[:-1]:
        return {}
    file = Path(arguments[arguments.index("--config") + 1])
    try:  # as the parser reads it: PyYAML alone takes 1e-4 for a word
        document = get_loader("yaml")(file.read_text()) if file.is_file() else None
    except yaml.YAMLError:  # the parser says what is wrong
        return {}
    return document if isinstance(document, dict) else {}


def value_of(arguments: list[str], flag: str, default: Any) -> Any:
    """What follows a flag, or else the YAML file's."""
    if f"--{flag}" in arguments[:-1]:
        return arguments[arguments.index(f"--{flag}") + 1]
    return default


def name_of(arguments: list[str], flag: str, section: Any, default: str | None) -> Any:
    """The name that a flag, or else the YAML file, chooses by."""
    of_file = section.get("name") if isinstance(section, dict) else None
    return value_of(arguments, flag, of_file or default)


def migrated(arguments: list[str], document: dict[str, Any], method: str, lead: str) -> list[str]:
    """The flags, and what their YAML file holds, in today's form, with a line of what has changed."""
    changed: dict[str, str] = {}
    words = []
    for word in arguments:
        bare = word.removeprefix(f"--{lead}")
        if word.startswith(f"--{lead}") and (now := moved(bare, method)) != bare:
            changed[bare], word = now, f"--{lead}{now}"
        words.append(word)
    today, of_file = migrate(document, method)
    if of_file:
        at = words.index("--config") + 1
        print(describe_changes(of_file, words[at]), file=sys.stderr)
        words[at] = json.dumps(today)
    if changed:
        print(describe_changes(changed, "this command"), file=sys.stderr)
    return words


def of_stages(arguments: list[str], document: dict[str, Any]) -> dict[str, Any]:
    """What `StagesConfig` takes, of a YAML file with `stages:` and the flags beside it.

    A flag overrides the file, in all stages.

    Raises:
        ValueError: a word that is no flag with its value.
    """
    flags: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        value = next(words, None)
        if not word.startswith("--") or value is None:
            raise ValueError(f"{word} is no --SETTING VALUE, which is all that goes with `stages:`")
        if word != "--config":
            *sections, name = word[2:].split(".")
            inner = flags
            for one in sections:
                inner = inner.setdefault(one, {})
            inner[name] = get_loader("yaml")(value)
    stages = document.get("stages")
    if isinstance(stages, list):
        own = {name: value for name, value in flags.items() if name not in OF_ALL}
        stages = [merged(one, own) if isinstance(one, dict) else one for one in stages]
    settings = {name: value for name, value in document.items() if name != "stages"}
    return {"settings": merged(settings, flags), "stages": stages}


def with_switches(arguments: list[str], cls: type) -> list[str]:
    """--insecure-pseudonyms, or the like with _, is the same setting with true as its value.

    A flag that may come several times adds to its list.
    """
    switches = {f"--{setting.name}" for setting in fields(cls) if setting.type is bool}
    lists = {f"--{setting.name}" for setting in fields(cls) if setting.metadata.get("repeated")}
    words = []
    for word, following in pairwise([*arguments, "--"]):
        name, equals, value = word.partition("=")
        if (plain := "--" + name[2:].replace("-", "_")) in switches and name.startswith("--"):
            alone = not equals and following.startswith("--")
            word = f"{plain}=true" if alone else plain + equals + value
        if name in lists:
            word = f"{name}+{equals}{value}"
        words.append(word)
    return words


def of_submit(arguments: list[str]) -> list[str]:
    """Words of `submit` as settings: what follows `--`, flags without a value, flags that may come twice."""
    if "--help" in arguments or "-h" in arguments:
        return ["--help"]
    if "--" not in arguments or not arguments[arguments.index("--") + 1 :]:
        raise ValueError(
            "submit wants a command: ray-mae submit [--SETTING …] -- pretrain --config …"
        )
    cut = arguments.index("--")
    own = []
    for word, following in pairwise(arguments[: cut + 1]):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = name.replace("-", "_").replace("__", "--", 1)
            name = f"{name}+" if name in ("--env", "--package") else name
        if name in ("--follow", "--dry_run") and not equals and following.startswith("--"):
            equals, value = "=", "true"
        own.append(name + equals + value)
    return [*own, f"--command={json.dumps(arguments[cut + 1 :])}"]
