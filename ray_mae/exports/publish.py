"""`publish`: one folder that every tool opens, with its papers, and the proof that each says the same."""

import copy
import json
import time
from typing import Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.config import PublishConfig
from ray_mae.exports import card as papers
from ray_mae.exports import graphs
from ray_mae.exports.doors import (
    BOUND,
    Door,
    describe_missed,
    not_installed,
    preprocessing_distance,
    try_doors,
)
from ray_mae.exports.example import Example, draw_films
from ray_mae.exports.folder import SUMS, checksums, into, listing
from ray_mae.exports.origin import describe_data, origin_of, read_cards, read_figures
from ray_mae.exports.parts import KNOWN, write_parts
from ray_mae.files import write_whole
from ray_mae.inference.load import load_encoder
from ray_mae.store import writes_to_stores
from ray_mae.summary import FILE as SUMMARY
from ray_mae.summary import write_summary
from ray_mae.terminal import console, warn


@writes_to_stores(goes_on=True)
def publish(config: PublishConfig) -> dict[str, Any]:
    """Writes the folder, opens it by every tool that is installed, and then puts it in its place.

    Nothing in it names the run's folder, the archive or a person.

    Args:
        config: settings of the command.

    Returns:
        The summary, also in summary.json.

    Raises:
        FileNotFoundError: there is no checkpoint, or no figures or card where they were said to be.
        ValueError: the output holds something else, or the encoder has none of the doors.
        RuntimeError: a tool gives other features than ours.
    """
    began = time.time()
    _require_free(config)
    facts = ckpt.encoder_facts(config.checkpoint)
    if not isinstance(facts.settings, KNOWN) or getattr(facts.settings, "plain", False):
        raise ValueError(
            f"{config.checkpoint} holds an encoder {facts.settings.name}, for which other tools have no "
            "network, or which its makers have published themselves"
        )
    origin = origin_of(config.checkpoint)
    figures = read_figures(config.figures)
    data = [describe_data(one) for one in read_cards(config.cards, origin.folders)]
    name = config.name or config.output.resolve().name
    encoder, _ = load_encoder(config.checkpoint, config.pool)
    missing = not_installed(graphs.ONNX_PACKAGES)
    if missing:
        warn(
            [
                f"no {graphs.ONNX}: {', '.join(missing)} not installed (pip install 'ray-mae[export]')"
            ]
        )
    with into(config.output, anew=True) as folder:
        how_to_open = write_parts(
            config.checkpoint,
            facts,
            origin,
            folder,
            name=name,
            pool=config.pool,
            view=config.view,
            licence=config.license,
            authors=", ".join(config.authors) or "unknown",
        )
        example = Example.of(encoder)
        example.write(folder)
        graphs.write_graphs(copy.deepcopy(encoder), example.inputs, folder, onnx=not missing)
        doors = []
        for door in try_doors(folder, example):
            doors.append(door)
            console.print(_progress(door))
        if missed := describe_missed(doors):
            raise RuntimeError(f"nothing was published: {missed}")
        distance = None
        if facts.settings.dimensions == 2 and not not_installed(("timm",)):
            films = draw_films(facts.settings.input_size)
            distance = preprocessing_distance(folder, example, films)
        card = papers.Card(
            name=name,
            folder=folder.name,
            config=config,
            facts=facts,
            width=encoder.width,
            origin=origin,
            data=data,
            figures=figures,
            doors=doors,
            transform_distance=distance,
        )
        write_whole(folder / "README.md", papers.readme(card))
        write_whole(folder / "LICENSE", papers.licence_text(config))
        write_whole(folder / "CITATION.cff", papers.citation(card))
        summary = {
            "command": "publish",
            "name": name,
            "encoder": facts.settings.described,
            "method": origin.method,
            "pool": config.pool,
            "licence": config.license,
            "bound": BOUND,
            "doors": {door.name: door.to_dict() for door in doors},
            "transform_distance": distance,
            "data_cards": len(data),
            "figures": len(figures),
            "files": listing(folder),
            "open": how_to_open.format(folder=name),
            "seconds": round(time.time() - began, 1),
        }
        write_summary(folder, summary)
        write_whole(folder / SUMS, checksums(folder))
    return summary


def _require_free(config: PublishConfig) -> None:
    """Raises ValueError where the output holds what is not an earlier publication."""
    output = config.output
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    summary = output / SUMMARY
    try:
        command = json.loads(summary.read_text()).get("command")
    except (OSError, ValueError):
        command = None
    if command != "publish":
        raise ValueError(
            f"{output} holds something else than an encoder that was published: give a new folder by output"
        )


def _progress(door: Door) -> str:
    shown = "" if door.difference is None else f", largest difference {door.difference:.1e}"
    return f"{door.name} ({door.reader}): {door.verdict if not door.missed else 'MISSED'}{shown}"
