"""A probe as data: where it reads, along which vector, and above which threshold it fires."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.core.files import atomic_directory
from pellucid.core.manifest import Manifest, read_manifest
from pellucid.core.types import AnySite, parse_site
from pellucid.models.model import LanguageModel
from pellucid.probes.fit import Line
from pellucid.probes.reading import Prompts, Tokens, check_tokens, read_sites

KIND = "probe"
TENSORS = "probe.safetensors"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """A linear reading of one site: `x . vector + bias`, positive above the threshold.

    Attributes:
        site: where it reads, or its name.
        vector: of the site's width.
        bias: added to the product.
        threshold: above it the probe says yes.
        tokens: at which token of a prompt it reads.
        provenance: how it was made, JSON-able.

    Raises:
        ConfigError: a number is not finite, or `tokens` is unknown.
        SiteError: the site's name cannot be read.
    """

    site: AnySite
    vector: Float[Tensor, " d"]
    bias: float = 0.0
    threshold: float = 0.0
    tokens: Tokens = "last"
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.site, str):
            object.__setattr__(self, "site", parse_site(self.site))
        vector = torch.as_tensor(self.vector, dtype=torch.float32).detach().cpu()
        object.__setattr__(self, "vector", vector)
        check_tokens(self.tokens)
        for name in ("bias", "threshold"):
            if not np.isfinite(getattr(self, name)):
                raise ConfigError(
                    f"the {name} of a probe is {getattr(self, name)}; give a finite number"
                )
        if vector.ndim != 1 or not bool(vector.isfinite().all()):
            raise ConfigError(
                f"the vector of a probe has shape {tuple(vector.shape)} or values that are not "
                "finite; give one finite row"
            )

    @classmethod
    def of(
        cls, site: AnySite, line: Line, *, tokens: Tokens = "last", **provenance: Any
    ) -> "Probe":
        """A fitted line as a probe of a site.

        Args:
            site: where the line was fitted.
            line: the reading.
            tokens: at which token.
            **provenance: how it was made.
        """
        vector = torch.tensor(line.vector, dtype=torch.float32)
        return cls(site=site, vector=vector, bias=line.bias, tokens=tokens, provenance=provenance)

    def at(self, threshold: float) -> "Probe":
        """The same probe with another threshold.

        Args:
            threshold: above it the probe says yes.

        Raises:
            ConfigError: it is not finite.
        """
        return replace(self, threshold=float(threshold))

    def scores(self, model: LanguageModel, prompts: Prompts) -> Float64[np.ndarray, " N"]:
        """The reading of each prompt.

        Args:
            model: the model it was fitted on.
            prompts: token ids a prompt.

        Raises:
            ConfigError: the site has another width than the probe.
            DataError: no prompts.
            SiteError: the model has no such site.
        """
        x = read_sites(model, prompts, [self.site], tokens=self.tokens)[self.site].cpu()
        if x.shape[1] != len(self.vector):
            raise ConfigError(
                f"the probe has width {len(self.vector)} and {self.site} of {model.name} has "
                f"{x.shape[1]}; use the model that it was fitted on"
            )
        return (x.double() @ self.vector.double()).numpy() + self.bias


def save_probe(folder: str | Path, probe: Probe, *, model_fingerprint: str) -> None:
    """Write a probe as safetensors with a manifest.

    Args:
        folder: to write, replaced if there.
        probe: the probe.
        model_fingerprint: of the model it reads.

    Raises:
        StorageError: the disk refuses.
    """
    from safetensors.torch import save_file

    config = {
        "site": str(probe.site),
        "bias": probe.bias,
        "threshold": probe.threshold,
        "tokens": probe.tokens,
        "provenance": probe.provenance,
    }
    with atomic_directory(Path(folder)) as temporary:
        save_file({"vector": probe.vector.contiguous()}, temporary / TENSORS)
        manifest = Manifest(kind=KIND, config=config, parents={"model": model_fingerprint})
        manifest.write(temporary, [TENSORS])


def load_probe(folder: str | Path, model: LanguageModel | None = None) -> Probe:
    """Read what `save_probe` wrote.

    Args:
        folder: of the probe.
        model: checked to be the one the probe was fitted on.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    from safetensors.torch import load_file

    manifest = read_manifest(Path(folder), kind=KIND)
    recorded = manifest.parents.get("model")
    if model is not None and recorded != model.fingerprint():
        raise CheckpointError(
            f"the probe of {folder} was fitted on another model (fingerprint {recorded}, this "
            f"one's is {model.fingerprint()}); load that model"
        )
    config = manifest.config
    try:
        return Probe(
            site=parse_site(config["site"]),
            vector=load_file(Path(folder) / TENSORS)["vector"],
            bias=config["bias"],
            threshold=config["threshold"],
            tokens=config["tokens"],
            provenance=config["provenance"],
        )
    except KeyError as error:
        raise CheckpointError(
            f"the probe of {folder} lacks {error}; fit it again, it was written by another version"
        ) from None
