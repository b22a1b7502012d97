"""Whether shards are stored as those that an encoder was pretrained on, and what to say where not."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray_mae.checkpoint import format as ckpt
from ray_mae.data.decoding.stored_images import EXACT
from ray_mae.data.kinds import of_encoder
from ray_mae.data.schema import NOUNS
from ray_mae.data.shard_set import ShardSet
from ray_mae.data.stored_form import CONTENTS

Mismatch = Literal["refuse", "tell"]
CLOSE = 0.02
"""Spacings this close are one, as for ingest."""


@dataclass(frozen=True)
class Difference:
    """One way in which shards differ from those of a pretraining."""

    text: str
    """A sentence."""
    meant: bool = True
    """Whether somebody may have wanted it."""


def cautions(path: Path, shards: Path, mismatch: Mismatch) -> list[str]:
    """Returns what a reader of test metrics must know of an encoder, a sentence each.

    Args:
        path: of a run, a checkpoint, an exported encoder or weights of others.
        shards: folder that it is tested on.
        mismatch: see `require_compatible`.

    Raises:
        FileNotFoundError, ValueError: see `require_compatible`.
    """
    found = require_compatible(path, ShardSet.read(shards), mismatch)
    if not (path / ckpt.EXPORTED).is_file() and ckpt.is_ours(path):
        begun = ckpt.read_state(ckpt.find_checkpoint(path)).get("begun_with", {})
        if "training_data" in begun:
            found.append(
                f"The encoder's pretraining began with {begun['source']} ({begun['family']}), whose training "
                f"data are {begun['training_data']}: they may hold test patients."
            )
    facts = ckpt.encoder_facts(path)
    if "labels" in facts.read:
        found.append(
            "The encoder's pretraining read labels of its training patients: where a head is fitted to few "
            "of these labels, it has an advantage over encoders that read none."
        )
    known = facts.trained_on
    if ckpt.fingerprint(shards) in known:
        return found  # its splits kept the test patients apart
    others = "other shards than these" if known else "shards that it does not name"
    if not ckpt.is_ours(path):
        others = "data of its makers, which its files do not name"
    return [
        *found,
        f"The encoder was pretrained on {others}: whether it saw test patients in its "
        "pretraining cannot be told from here.",
    ]


def require_compatible(path: Path, shards: ShardSet, mismatch: Mismatch) -> list[str]:
    """Returns how shards differ from those of an encoder's pretraining, a sentence each.

    Args:
        path: of a run, a checkpoint, an exported encoder or weights of others.
        shards: what the encoder is to read.
        mismatch: refuse what cannot be meant, or tell it as well.

    Raises:
        FileNotFoundError: where there is no checkpoint.
        ValueError: with what to do, where the difference cannot be meant.
    """
    encoder = ckpt.encoder_facts(path)
    if shards.kind != of_encoder(encoder.settings).name:
        return []  # whoever reads them says so
    found = differences(encoder, shards)
    wrong = [d.text for d in found if not d.meant]
    if wrong and mismatch == "refuse":
        raise ValueError(
            f"{path} does not fit {', '.join(map(str, shards.paths))}. {' '.join(wrong)} If this is "
            "meant, say so with --mismatch tell (in a search: run.mismatch)"
        )
    return [d.text for d in found]


def differences(encoder: ckpt.EncoderFacts, shards: ShardSet) -> list[Difference]:
    """Returns how shards differ from those of a pretraining. What either does not say is not compared.

    Args:
        encoder: as its checkpoint says.
        shards: of its kind.
    """
    before, now = encoder.form, shards.form
    found = _spacing(encoder.spacing_mm, shards.spacing_mm, known=bool(before and now))
    for name in ("orientation", "normalisation"):
        if name in before and name in now and before[name] != now[name]:
            text = f"The {name} of the pretraining was {before[name]!r}, here it is {now[name]!r}."
            found.append(Difference(text, meant=False))
    if "image_size" in before and "image_size" in now:
        found += _image_size(before["image_size"], now["image_size"], encoder.settings.input_size)
    lossy = [form.get("encoding") for form in (before, now) if form.get("encoding") not in EXACT]
    if before.get("encoding") != now.get("encoding") and any(lossy) and None not in lossy:
        found.append(
            Difference(
                f"The images of the pretraining were stored as {before['encoding']}, these as "
                f"{now['encoding']}."
            )
        )
    for name in CONTENTS:
        if before.get(name, {}).get("train") and now.get(name):
            found += _contents(name, before[name]["train"], now[name], NOUNS[shards.kind])
    return found


def _spacing(before: float | None, now: float | None, *, known: bool) -> list[Difference]:
    """known: whether None means that each volume has its own."""
    if before and now:
        if abs(before / now - 1) <= CLOSE:
            return []
        text = (
            f"The encoder was pretrained on volumes of {before:g} mm, these are stored at {now:g} mm: ingest "
            f"them with --volumes.spacing_mm {before:g}."
        )
        return [Difference(text, meant=False)]
    if (before or now) and known:
        names = [f"of {s:g} mm" if s else "of their own spacing" for s in (before, now)]
        text = f"The encoder was pretrained on volumes {names[0]}, these are {names[1]}."
        return [Difference(text)]
    return []


def _image_size(before: int, now: int, seen: int) -> list[Difference]:
    """Sides of stored images, and of what the encoder sees, in pixels."""
    if before == now:
        return []
    text = f"The images of the pretraining were stored with a short side of {before} px, these with {now} px"
    if now < min(before, seen):
        text += f", of which the encoder, which sees {seen} px, has to invent the rest"
    return [
        Difference(
            f"{text}: ingest them with --image_size {before}.", meant=now >= min(before, seen)
        )
    ]


def _contents(
    name: str, before: dict[str, int], by_split: dict[str, dict[str, int]], noun: str
) -> list[Difference]:
    """Contrasts or views that the pretraining did not see; before: of its training split."""
    counts: Counter[str] = Counter()
    for of_split in by_split.values():
        counts.update(of_split)
    new = {
        value: count
        for value, count in counts.items()
        if value not in before and (name == "views" or value != "unknown")
    }
    if not new:
        return []
    noun = noun if name == "contrasts" else "images"
    listed = ", ".join(
        f"{value} ({count:,} of {counts.total():,} {noun})" for value, count in new.items()
    )
    return [
        Difference(
            f"{'Contrasts' if name == 'contrasts' else 'Views'} that the pretraining never saw: {listed}; it "
            f"saw {', '.join(before)}."
        )
    ]
