"""Concept vectors, and the vectors of the control arms with the same norm."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import Site
from pellucid.introspection.dialogue import Dialogue, padded

_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Concepts:
    """Vectors of C concepts at some layers.

    Attributes:
        words: the concepts.
        vectors: layer -> not normalised: the residual after that layer at the last token of the
            concept's prompt, less the mean over the baseline words (Lindsey 2025).
        residual_norm: layer -> median norm of the residual at those tokens; strengths are reported
            as rho = strength * |vector| / this.
    """

    words: tuple[str, ...]
    vectors: dict[int, Float[Tensor, "C d"]]
    residual_norm: dict[int, float]

    def rho(self, layer: int, strength: float) -> float:
        """Mean size of an injection relative to the residual it is added to."""
        size = float(self.vectors[layer].norm(dim=1).mean())
        return strength * size / self.residual_norm[layer]


def site_after(layer: int) -> Site:
    """Where vectors are read and injected."""
    return Site("resid_post", layer)


@torch.no_grad()
def concept_vectors(
    dialogue: Dialogue, layers: Sequence[int], words: Sequence[str] | None = None
) -> Concepts:
    """The vectors of a wording's concepts.

    Args:
        dialogue: of the model.
        layers: after which layers.
        words: others than the wording's concepts, less the mean of the same baseline words.

    Raises:
        SiteError: the model has no such layer.
        PromptError: a word is not in the model's vocabulary.
    """
    wording = dialogue.wording
    chosen = tuple(wording.concepts if words is None else words)
    concepts, baselines = (
        _last_residuals(dialogue, group, layers) for group in (chosen, wording.baselines)
    )
    vectors = {layer: concepts[layer] - baselines[layer].mean(dim=0) for layer in layers}
    norms = {
        layer: float(torch.cat([concepts[layer], baselines[layer]]).norm(dim=1).median())
        for layer in layers
    }
    return Concepts(words=chosen, vectors=vectors, residual_norm=norms)


def _last_residuals(
    dialogue: Dialogue, words: Sequence[str], layers: Sequence[int]
) -> dict[int, Float[Tensor, "C d"]]:
    prompts = [dialogue.concept(word) for word in words]
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for first in range(0, len(prompts), _ROWS):
        ids, mask, lengths = padded(prompts[first : first + _ROWS])
        values = dialogue.model.activations(ids, [site_after(layer) for layer in layers], mask)
        rows = torch.arange(len(ids))
        for layer in layers:
            found[layer].append(values[site_after(layer)][rows, lengths - 1].float().cpu())
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def random_like(vector: Float[Tensor, " d"], seed: int) -> Float[Tensor, " d"]:
    """A direction drawn evenly from the sphere, with the vector's norm.

    Args:
        vector: gives width and norm.
        seed: of the direction.
    """
    drawn = torch.randn(vector.shape, generator=torch.Generator().manual_seed(seed))
    return drawn * (vector.norm().cpu() / drawn.norm())


def shuffled(vector: Float[Tensor, " d"], seed: int) -> Float[Tensor, " d"]:
    """The vector with its coordinates in random order: the same values in other places.

    Args:
        vector: to be shuffled.
        seed: of the order.
    """
    order = torch.randperm(len(vector), generator=torch.Generator().manual_seed(seed))
    return vector.cpu()[order]
