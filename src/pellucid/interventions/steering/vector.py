"""Steering vectors as data: where a direction is added, how it came about, and its file."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from pellucid.core.errors import CheckpointError, InterventionError
from pellucid.core.files import atomic_directory
from pellucid.core.manifest import Manifest, read_manifest
from pellucid.core.types import AnySite, ModuleSite, Site
from pellucid.interventions.operations import Add
from pellucid.interventions.spec import Intervention
from pellucid.interventions.steering.reading import Prompts, prompts_hash
from pellucid.interventions.where import EVERYWHERE, Where
from pellucid.models.model import LanguageModel

ARTIFACT_KIND = "steering-vector"
_FILE = "vector.safetensors"
_PARENT = "model"


class Steering(ABC):
    """Anything that steers at a strength: a vector, one a position, a conditional vector, ..."""

    @abstractmethod
    def interventions(
        self, strength: float = 1.0, *, rows: Sequence[int] | None = None
    ) -> list[Intervention]:
        """The edits that steer with a strength.

        Args:
            strength: factor of the vector.
            rows: rows of the batch to steer, None for all.
        """


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SteeringVector(Steering):
    """A direction and where it is added.

    Attributes:
        site: what it is added to.
        vector: not normalised; never zero.
        method: how it was made, such as `caa`.
        where: the tokens it is added to.
        provenance: JSON-able: fingerprint of the model, hash and numbers of prompts, ...

    Raises:
        InterventionError: the vector is zero, not finite or not flat.
        SiteError: the name of the site cannot be read.
    """

    site: AnySite
    vector: Float[Tensor, " d"]
    method: str
    where: Where = EVERYWHERE
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", as_site(self.site))
        vector = torch.as_tensor(self.vector, dtype=torch.float32).detach().cpu()
        if vector.ndim != 1 or not bool(vector.isfinite().all()) or float(vector.norm()) == 0:
            raise InterventionError(
                f"the {self.method} vector at {self.site} has shape {tuple(vector.shape)} and "
                f"length {float(vector.norm()):g}; it must be flat, finite and not zero (do the "
                "two sides of the contrast differ before this site?)"
            )
        object.__setattr__(self, "vector", vector)

    @property
    def norm(self) -> float:
        """Its Euclidean length."""
        return float(self.vector.norm())

    def interventions(
        self, strength: float = 1.0, *, rows: Sequence[int] | None = None
    ) -> list[Intervention]:
        """One `Add` at the site."""
        op = Add(self.vector, strength)
        return [Intervention(self.site, op, self.where, None if rows is None else tuple(rows))]

    def at(self, where: Where) -> "SteeringVector":
        """The same vector for other tokens."""
        return replace(self, where=where)

    def cosine(self, other: "SteeringVector") -> float:
        """Cosine with another vector, such as the refusal direction (arXiv 2603.24543).

        Raises:
            InterventionError: the widths differ.
        """
        if self.vector.shape != other.vector.shape:
            raise InterventionError(
                f"vectors of width {len(self.vector)} and {len(other.vector)} have no cosine; "
                "give vectors of one model"
            )
        return float(torch.cosine_similarity(self.vector, other.vector, dim=0))

    def check_model(self, model: LanguageModel) -> None:
        """Refuse a model other than the one that the vector was made on.

        Raises:
            InterventionError: the fingerprints differ.
        """
        recorded = self.provenance.get(_PARENT)
        if recorded is not None and recorded != model.fingerprint():
            raise InterventionError(
                f"the {self.method} vector was made on a model with fingerprint {recorded}, this "
                f"one's is {model.fingerprint()}; load that model or make the vector again"
            )

    def save(self, folder: str | Path) -> Path:
        """Write `vector.safetensors` and `manifest.json` into a folder, replaced if it exists.

        Raises:
            StorageError: the disk refuses.
        """
        from safetensors.torch import save_file

        manifest = Manifest(
            kind=ARTIFACT_KIND,
            config={
                "site": str(self.site),
                "method": self.method,
                "where": self.where.to_json(),
                "provenance": dict(self.provenance),
            },
            parents={_PARENT: self.provenance[_PARENT]} if _PARENT in self.provenance else {},
        )
        with atomic_directory(Path(folder)) as temporary:
            save_file({"vector": self.vector.contiguous()}, temporary / _FILE)
            manifest.write(temporary, [_FILE])
        return Path(folder)


@final
@dataclass(frozen=True, slots=True, eq=False)
class PositionVectors(Steering):
    """Several vectors that act together, such as one a position.

    Attributes:
        parts: at least one.
    """

    parts: tuple[SteeringVector, ...]

    def interventions(
        self, strength: float = 1.0, *, rows: Sequence[int] | None = None
    ) -> list[Intervention]:
        """Those of every part, all with the same strength."""
        return [each for part in self.parts for each in part.interventions(strength, rows=rows)]


def load_vector(folder: str | Path) -> SteeringVector:
    """The vector that `SteeringVector.save` wrote, checked against its manifest.

    Raises:
        CheckpointError: missing, damaged, or not a steering vector.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    manifest = read_manifest(folder, kind=ARTIFACT_KIND)
    try:
        tensors = load_file(folder / _FILE)
        config = manifest.config
        return SteeringVector(
            site=config["site"],
            vector=tensors["vector"],
            method=config["method"],
            where=Where.from_json(config["where"]),
            provenance=config["provenance"],
        )
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(
            f"{folder} holds no readable steering vector ({error}); make it again"
        ) from error


def as_site(site: AnySite | str) -> AnySite:
    """A site, or the one that a name means in any spelling of `core.places`.

    Raises:
        SiteError: the name cannot be read, or names a head or a feature.
    """
    from pellucid.core.errors import SiteError
    from pellucid.core.places import parse_place

    place = parse_place(site) if isinstance(site, str) else site
    if not isinstance(place, (Site, ModuleSite)):
        raise SiteError(
            f"{place} is no site of the residual computation; steer at one, as in 'resid_post@1'"
        )
    return place


def provenance(model: LanguageModel, *groups: Prompts, **more: Any) -> dict[str, Any]:
    """What a vector's record says: the model, the prompts and their numbers, and more."""
    return {
        _PARENT: model.fingerprint(),
        "model_name": model.name,
        "prompts": prompts_hash(*groups),
        "counts": [len(group) for group in groups],
    } | more
