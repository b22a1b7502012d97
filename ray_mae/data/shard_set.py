"""The shards that a run reads: of one archive, or of several with shares."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ray_mae.data.loading.integrity import check_sizes
from ray_mae.data.paths import resolve_url
from ray_mae.data.schema import NOUNS, Manifest, Shard
from ray_mae.data.stored_form import StoredForm, join_forms


@dataclass(frozen=True)
class Folder:
    """What `ingest` wrote of one archive."""

    path: Path
    manifest: Manifest
    name: str
    """Of the data set, unlike all others of the set."""
    share: float
    """Of the samples that are drawn, in (0, 1]; those of a set sum to 1."""


@dataclass(frozen=True)
class ShardSet:
    """Folders of shards of one kind."""

    folders: tuple[Folder, ...]

    @classmethod
    def read(
        cls, paths: Path | Sequence[Path], shares: Sequence[float] | None = None
    ) -> "ShardSet":
        """Reads the manifests.

        Args:
            paths: of one or several folders that `ingest` wrote, on disk or in a store.
            shares: of the samples to draw from each, in any unit; by default each has the share that it
                has of all training samples, so that every sample is drawn equally often.

        Raises:
            FileNotFoundError: where a folder holds no shards.
            ValueError: where folders cannot go together, or a share has no samples behind it.
        """
        paths = [resolve_url(path) for path in (paths if isinstance(paths, Sequence) else [paths])]
        if not paths:
            raise ValueError("shards names no folder: give one or several that `ingest` wrote")
        if shares is not None and len(shares) != len(paths):
            raise ValueError(
                f"shares ({', '.join(f'{s:g}' for s in shares)}) must be as many as the folders of "
                f"shards, {len(paths)}"
            )
        if twice := [str(p) for p, n in Counter(p.resolve() for p in paths).items() if n > 1]:
            raise ValueError(
                f"shards names {twice[0]} twice: to draw more of it, give it a larger share by shares"
            )
        manifests = [Manifest.read(path) for path in paths]
        _require_alike(paths, manifests)
        rows = [manifest.rows("train") for manifest in manifests]
        weights = [float(r) for r in rows] if shares is None else list(shares)
        for path, share, available in zip(paths, weights, rows, strict=True):
            if len(paths) > 1 and not available:
                noun = NOUNS[manifests[0].kind]
                raise ValueError(
                    f"{path} holds no {noun} of the train split: leave it out of shards"
                )
            if shares is not None and share <= 0:
                raise ValueError(f"shares must be more than 0, got {share:g} for {path}")
        total = sum(weights) or 1.0
        return cls(
            tuple(
                Folder(path, manifest, name, share / total if len(paths) > 1 else 1.0)
                for path, manifest, name, share in zip(
                    paths, manifests, _names(paths, manifests), weights, strict=True
                )
            )
        )

    @classmethod
    def single(cls, path: Path, manifest: Manifest) -> "ShardSet":
        """One folder, as its manifest was when it was read."""
        return cls((Folder(resolve_url(path), manifest, manifest.dataset, 1.0),))

    def __len__(self) -> int:
        return len(self.folders)

    @property
    def kind(self) -> str:
        """Of the samples: study or volume."""
        return self.folders[0].manifest.kind

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(folder.path for folder in self.folders)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(folder.name for folder in self.folders)

    @property
    def spacing_mm(self) -> float | None:
        """Between the voxels of every volume; None: each has its own, or these are studies."""
        return self.folders[0].manifest.spacing_mm

    @property
    def form(self) -> StoredForm:
        """How all of them are stored, and what they hold; empty where shards do not say."""
        return join_forms(folder.manifest.form for folder in self.folders)

    def rows(self, split: str) -> int:
        """Samples of one split."""
        return sum(folder.manifest.rows(split) for folder in self.folders)

    def of_split(self, split: str) -> list[tuple[Path, Shard]]:
        """Paths and entries of one split's files, folder by folder."""
        return [
            (folder.path / shard.file, shard)
            for folder in self.folders
            for shard in folder.manifest.of_split(split)
        ]

    def check_sizes(self) -> None:
        """Raises DamagedShard where a file is missing, or has another size than its manifest says."""
        for folder in self.folders:
            check_sizes(folder.path, folder.manifest)

    def describe(self) -> str:
        """Where the samples lie, and with which shares where they are of several archives."""
        if len(self) == 1:
            return f"in {self.folders[0].path}"
        return "of " + ", ".join(
            f"{folder.name} ({folder.manifest.rows('train'):,}, {folder.share:.1%} of the draws)"
            for folder in self.folders
        )


def _require_alike(paths: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    for name, what in (("kind", "kind"), ("spacing_mm", "spacing in mm")):
        values = [getattr(manifest, name) for manifest in manifests]
        if len(set(values)) > 1:
            held = ", ".join(f"{path} {value}" for path, value in zip(paths, values, strict=True))
            raise ValueError(f"the folders of shards must be of one {what}: {held}")


def _names(paths: Sequence[Path], manifests: Sequence[Manifest]) -> list[str]:
    """The data sets' names; those that two share get the end of their paths beside that tells them apart."""
    alike: dict[str, list[tuple[str, ...]]] = {}
    for path, manifest in zip(paths, manifests, strict=True):
        alike.setdefault(manifest.dataset, []).append(path.absolute().parts)
    return [
        _name(manifest.dataset, path.absolute().parts, alike[manifest.dataset])
        for path, manifest in zip(paths, manifests, strict=True)
    ]


def _name(dataset: str, folder: tuple[str, ...], alike: list[tuple[str, ...]]) -> str:
    if len(alike) == 1:
        return dataset
    length = 1
    while sum(other[-length:] == folder[-length:] for other in alike) > 1:
        length += 1
    return f"{dataset} ({'/'.join(folder[-length:])})"
