"""A cache of activations: a folder of shards and a manifest that says what they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.core.files import sha256
from pellucid.core.manifest import MANIFEST_NAME, Manifest, read_manifest
from pellucid.harvest.cache.storage import STORAGE, Storage

ARTIFACT_KIND = "activation-cache"
OnProgress = Callable[[int, int], None]
"""Told how much is done and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """What the manifest says of a shard.

    Attributes:
        file: its name.
        sha256: of its bytes.
        tokens: how many it has.
        document, token: where the text after it begins.
    """

    file: str
    sha256: str
    tokens: int
    document: int
    token: int


@dataclass(slots=True, kw_only=True)
class ActivationCache:
    """An opened cache.

    Attributes:
        folder: where it is.
        identity: what decides its values (`LiveActivations.identity`).
        dtype: a name of `STORAGE`.
        shards: those that are whole, in the order of the text.
        ended: whether they hold the whole text.
    """

    folder: Path
    identity: dict[str, Any]
    dtype: str
    shards: list[ShardRecord]
    ended: bool
    versions: dict[str, str] | None = None

    @property
    def tokens(self) -> int:
        """How many tokens it holds."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def storage(self) -> Storage:
        """How rows are stored."""
        return STORAGE[self.dtype]

    def holds(self, tokens: int) -> bool:
        """Whether it is whole for a run over that many tokens."""
        return self.ended or self.tokens >= tokens

    def save(self) -> None:
        """Write the manifest.

        Raises:
            StorageError: the disk refuses.
        """
        manifest = Manifest(
            kind=ARTIFACT_KIND,
            config=self.identity | {"dtype": self.dtype},
            files={shard.file: shard.sha256 for shard in self.shards},
            results={
                "ended": self.ended,
                "shards": [
                    {
                        "file": shard.file,
                        "tokens": shard.tokens,
                        "next": [shard.document, shard.token],
                    }
                    for shard in self.shards
                ],
            },
        )
        if self.versions is not None:
            manifest.versions = self.versions
        manifest.save(self.folder)


def open_cache(folder: str | Path, *, on_progress: OnProgress | None = None) -> ActivationCache:
    """Open a cache and verify every byte of it against its checksums, a shard at a time.

    Args:
        folder: of the cache, whole or partial.
        on_progress: told how many tokens of how many are verified.

    Raises:
        CheckpointError: there is no cache, or a file of it is missing or damaged.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, kind=ARTIFACT_KIND, verify=False)
    identity = dict(manifest.config)
    cache = ActivationCache(
        folder=folder,
        dtype=identity.pop("dtype"),
        identity=identity,
        shards=[
            ShardRecord(
                file=shard["file"],
                sha256=manifest.files[shard["file"]],
                tokens=shard["tokens"],
                document=shard["next"][0],
                token=shard["next"][1],
            )
            for shard in manifest.results["shards"]
        ],
        ended=manifest.results["ended"],
        versions=manifest.versions,
    )
    _verify(cache, on_progress)
    return cache


def has_cache(folder: str | Path) -> bool:
    """Whether a folder holds a cache, whole or partial."""
    return (Path(folder) / MANIFEST_NAME).exists()


def check_identity(cache: ActivationCache, wanted: Mapping[str, Any], *, complete: bool) -> None:
    """Check that a cache holds what is asked for.

    A cache of more sites than asked for will do, unless it has to be completed, or tokens were
    excluded by their norms at all its sites.

    Args:
        cache: the cache.
        wanted: the identity of the live activations it stands for.
        complete: whether the cache has to be completed.

    Raises:
        ConfigError: names the first difference.
    """
    found = cache.identity | {"dtype": cache.dtype}
    fewer = wanted["sites"].items() < found["sites"].items()
    loose = fewer and not complete and wanted["exclude_high_norm"] is None
    for name in wanted:
        if found.get(name) == wanted[name] or (loose and name in ("sites", "block_tokens")):
            continue
        before, now = (
            ", ".join(value) if name == "sites" else repr(value)
            for value in (found[name], wanted[name])
        )
        raise ConfigError(
            f"the cache in {cache.folder} is another one: its {name} is {before}, asked for is "
            f"{now}; use another folder, or delete the cache to make it again"
        )


def _verify(cache: ActivationCache, on_progress: OnProgress | None) -> None:
    paths = [cache.folder / shard.file for shard in cache.shards]
    for path in paths:
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing; restore it from a copy, or delete the cache and make it again"
            )
    done = 0
    for path, shard in zip(paths, cache.shards, strict=True):
        if sha256(path) != shard.sha256:
            raise CheckpointError(
                f"{path} is damaged (its checksum differs from the manifest's); restore it from a "
                "copy, or delete the cache and make it again"
            )
        done += shard.tokens
        if on_progress:
            on_progress(done, cache.tokens)
