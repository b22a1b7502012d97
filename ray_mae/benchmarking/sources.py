"""The encoders of a suite as sources of features: where they come from, what they see, what names them."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.config.suite import EncoderEntry, SuiteConfig
from ray_mae.data.kinds import of_encoder

VERSION = 1
"""Of what `features` computes: raised where the same encoder would give other numbers."""
VERSIONS = {"histogram": 2}
"""The same of single kinds."""
IMAGELESS = ("metadata", "prevalence")
"""Kinds that look at no image."""
OF_PIXELS = ("pixels", "histogram")
"""Kinds that look at images without a network."""


@dataclass(frozen=True)
class Source:
    """What turns views into vectors, as a value that travels to Ray's actors and names a cache."""

    kind: str
    """weights, random, pixels or histogram."""
    sample: str
    """study or volume"""
    path: Path | None = None
    """Of the weights; of random those whose network it takes."""
    weights: str = ""
    """Hash of the weights; of random that of the network's settings."""
    seed: int = 0
    """Of random weights."""
    side: int = 0
    """Of pixels, of the small images."""
    crop_size: int | None = None
    sees: str = "middle"
    grid: int = 0
    """Tokens are kept, pooled to so many along each side; 0: none are."""
    corruption: str = ""
    """Name of a change of the images, with its strength 1 to 3 after a colon."""

    def key(self, shards: str, max_views: int) -> str:
        """Names a cache: the same wherever the same features would come out.

        Args:
            shards: fingerprint of the data set.
            max_views: of a study.
        """
        values = {**asdict(self), "path": None, "shards": shards, "max_views": max_views}
        text = json.dumps(
            {**values, "version": VERSIONS.get(self.kind, VERSION)}, sort_keys=True, default=str
        )
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def sight(self) -> tuple:
        """What is alike of sources that can share the images they see."""
        looks = self.kind if self.kind == "histogram" else "images"
        size = self.input_size if self.sample == "volume" else 0
        return (looks, self.sample, size, self.sees, self.corruption)

    @property
    def input_size(self) -> int:
        """Side of what it sees, in pixels or voxels."""
        if self.crop_size:
            return self.crop_size
        if self.path is not None:
            return ckpt.encoder_facts(self.path).settings.input_size
        return self.side or 1

    def with_tokens(self, grid: int) -> "Source":
        return replace(self, grid=grid)

    def corrupted(self, name: str) -> "Source":
        return replace(self, corruption=name)


def sources_of(config: SuiteConfig, name: str, sample: str) -> list[Source]:
    """Returns one source for each seed of an encoder's pretraining; none of one that sees no image.

    Args:
        config: of the suite.
        name: of the encoder.
        sample: study or volume, what is to be seen.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: it reads samples of another kind, or names no network.
    """
    entry = config.encoders[name]
    if entry.kind in IMAGELESS:
        return []
    if entry.kind in OF_PIXELS:
        side = entry.side if entry.kind == "pixels" else 0
        if sample == "volume":
            side = max(2, side // 4) if side else 0
        crop, sees = _seen_of_volumes(config, sample)
        return [Source(entry.kind, sample, side=side, crop_size=crop, sees=sees)]
    if entry.kind == "weights":
        return [_of_weights(name, entry, path, sample) for path in entry.sources]
    of = config.encoders[entry.like or ""]
    facts = ckpt.encoder_facts(of.sources[0])
    _require(name, of_encoder(facts.settings).name, sample)
    described = json.dumps(asdict(facts.settings), sort_keys=True, default=str)
    weights = hashlib.sha256(described.encode()).hexdigest()
    return [
        Source("random", sample, of.sources[0], weights, seed, 0, of.crop_size, of.sees)
        for seed in (entry.seeds if entry.kind == "random" else [0])
    ]


def _of_weights(name: str, entry: EncoderEntry, path: Path, sample: str) -> Source:
    facts = ckpt.encoder_facts(path)
    _require(name, of_encoder(facts.settings).name, sample)
    facts.settings.resized(entry.crop_size)
    return Source(
        "weights", sample, path.resolve(), weights_sha(path), 0, 0, entry.crop_size, entry.sees
    )


def _require(name: str, kind: str, sample: str) -> None:
    if kind != sample:
        raise ValueError(f"encoders.{name} reads samples of kind {kind!r}, these are {sample!r}")


def _seen_of_volumes(config: SuiteConfig, sample: str) -> tuple[int | None, str]:
    """Baselines of pixels see what the first encoder of volumes sees."""
    if sample == "study":
        return None, "middle"
    for entry in config.encoders.values():
        if entry.kind == "weights":
            settings = ckpt.encoder_facts(entry.sources[0]).settings
            if settings.dimensions == 3:
                return entry.crop_size or settings.input_size, entry.sees
    return DEFAULT_CROP, "middle"


DEFAULT_CROP = 96
"""Voxels along each side that baselines see where no encoder of volumes is in the suite."""


def weights_sha(path: Path) -> str:
    """Returns a hash of an encoder's weights and settings, whatever its folder is called.

    Raises:
        FileNotFoundError: that says what was looked for.
    """
    digest = hashlib.sha256()
    for name, array in sorted(ckpt.encoder_weights(path).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    settings: Any = asdict(ckpt.encoder_facts(path).settings)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()
