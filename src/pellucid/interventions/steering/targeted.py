"""Steering vectors solved for their measured effect on features (SAE-TS, Chalnev et al. 2024).

Random vectors are added at a site and the change of every feature's activation further on is
measured; a ridge regression makes of it a linear map, effects = v M + b. A vector that moves the
target feature and few others solves

    minimise |v M - t|^2 + ridge |v|^2,   t = 1 at the target, 0 elsewhere.

The paper takes M's own column of the target, less the bias's direction; that is the limit of a
large ridge (without the bias), and moves whatever goes along with the target too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.types import AnySite
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.operations import Add
from pellucid.interventions.run import run_with_cache
from pellucid.interventions.spec import Intervention
from pellucid.interventions.steering.reading import ROWS_AT_ONCE, Prompts, ids_of
from pellucid.interventions.steering.strength import median_norm
from pellucid.interventions.steering.vector import SteeringVector, as_site, provenance
from pellucid.interventions.targets import order_of
from pellucid.interventions.where import Where, window
from pellucid.models.model import LanguageModel

_HELD_OUT = 0.2
_SHRINKAGES = (1e-6, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EffectMap:
    """A linear map from an added vector to changes of feature activations.

    Attributes:
        site: where vectors are added.
        layer: of the dictionary whose features are moved.
        weights: change of each feature for each direction of the vector.
        bias: change that any vector of the measured length brings.
        r2: share of the variance of held-out effects that the map explains, for the shrinkage of
            the regression that was chosen by it; about 0: nothing linear to be found.
        where: the tokens that were edited.
        provenance: of the measurement.
    """

    site: AnySite
    layer: int
    weights: Float[Tensor, "d F"]
    bias: Float[Tensor, " F"]
    r2: float
    where: Where
    provenance: Mapping[str, object]

    def effects(self, vector: Float[Tensor, " d"]) -> Float[Tensor, " F"]:
        """The changes of activations that a vector is predicted to bring."""
        return vector @ self.weights + self.bias

    def solve(self, target: Mapping[int, float], *, ridge: float = 1.0) -> SteeringVector:
        """The vector whose predicted effect is nearest to what is wanted, of unit length.

        Args:
            target: wanted change by feature; every other feature should not change.
            ridge: price of length, in units of the mean squared singular value of the map.

        Raises:
            InterventionError: no target, a feature out of range, or one that nothing moves.
        """
        count = self.weights.shape[1]
        for feature in target:
            if not 0 <= feature < count:
                raise InterventionError(
                    f"feature {feature} is out of range; layer {self.layer} has features 0 to "
                    f"{count - 1}"
                )
        wanted = torch.zeros(count, dtype=torch.float64)
        wanted[list(target)] = torch.tensor(list(target.values()), dtype=torch.float64)
        weights = self.weights.double()
        pull = weights @ wanted
        if not bool(pull.any()):
            raise InterventionError(
                f"no vector at {self.site} moves features {sorted(target)} of layer {self.layer}; "
                "choose features that are active on the prompts, or an earlier site"
            )
        gram = weights @ weights.T
        price = ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        solution = torch.linalg.solve(gram + price, pull)
        return SteeringVector(
            site=self.site,
            vector=(solution / solution.norm()).float(),
            method="sae-ts",
            where=self.where,
            provenance=dict(self.provenance)
            | {"target": {str(k): v for k, v in target.items()}, "ridge": ridge},
        )


@torch.no_grad()
def measure_effects(
    model: LanguageModel,
    dictionaries: DictionarySet,
    layer: int,
    site: AnySite | str,
    prompts: Prompts,
    *,
    vectors: int | None = None,
    rho: float = 0.5,
    where: Where | None = None,
    seed: int = 0,
) -> EffectMap:
    """Add random vectors, measure what they do to the features of a layer, and fit the map.

    Effects are mean changes of activation at the last token of each prompt.

    Args:
        model: the model.
        dictionaries: its dictionaries.
        layer: of the features; its dictionary must read after the site.
        site: where vectors are added.
        prompts: a few.
        vectors: how many; None for four a direction of the site.
        rho: their relative strength.
        where: tokens they are added to; None for the last one of a prompt and all after it.
        seed: of the directions.

    Raises:
        DictionaryError: the set has no such layer.
        InterventionError: there is no prompt, or the dictionary does not read after the site.
        PromptError: a prompt cannot be read.
        SiteError: the model has no such site.
    """
    site, where = as_site(site), window(-1) if where is None else where
    dictionary = dictionaries[layer]
    added, read = order_of(site, None), order_of(dictionary.read_site, None)
    if added is not None and read is not None and added > read:
        raise InterventionError(
            f"vectors at {site} do not change the features of layer {layer}, which are read at "
            f"{dictionary.read_site}; choose a later layer or an earlier site"
        )
    ids = [ids_of(model, each) for each in prompts]
    probe = SteeringVector(site=site, vector=torch.ones(model.d_model), method="probe", where=where)
    length = rho * median_norm(model, probe, prompts)
    count = 4 * model.d_model if vectors is None else vectors
    drawn = torch.randn(count, model.d_model, generator=torch.Generator().manual_seed(seed))
    drawn = drawn * (length / drawn.norm(dim=1, keepdim=True))
    plain = _activations(model, dictionary, ids, []).mean(0)
    effects = []
    at_once = max(1, ROWS_AT_ONCE // len(ids))
    for start in range(0, count, at_once):
        part = drawn[start : start + at_once]
        edits = [
            Intervention(site, Add(vector), where, tuple(range(n * len(ids), (n + 1) * len(ids))))
            for n, vector in enumerate(part)
        ]
        moved = _activations(model, dictionary, ids * len(part), edits)
        effects.append(moved.view(len(part), len(ids), -1).mean(1) - plain)
    weights, bias, r2 = _fit(drawn, torch.cat(effects))
    record = provenance(
        model, prompts, dictionaries=dictionaries.name, layer=layer, rho=rho, seed=seed
    )
    return EffectMap(
        site=site, layer=layer, weights=weights, bias=bias, r2=r2, where=where, provenance=record
    )


def _activations(
    model: LanguageModel,
    dictionary: Dictionary,
    ids: list[list[int]],
    edits: list[Intervention],
) -> Float[Tensor, "N F"]:
    """Feature activations at the last token of each row, in float32."""
    name = str(dictionary.read_site)
    run, values = run_with_cache(model, ids, [name], edits)
    ends = run.batch.positions.argmax(dim=1)
    read = values[name][torch.arange(len(ids), device=ends.device), ends]
    return dictionary.encode(read).dense().float().cpu()


def _fit(
    vectors: Float[Tensor, "N d"], effects: Float[Tensor, "N F"]
) -> tuple[Float[Tensor, "d F"], Float[Tensor, " F"], float]:
    """Ridge regression with an intercept: the shrinkage that tells the held-out vectors best."""
    kept = max(1, round(len(vectors) * (1 - _HELD_OUT)))
    x, y = vectors.double(), effects.double()
    mean_x, mean_y = x[:kept].mean(0), y[:kept].mean(0)
    centred = x[:kept] - mean_x
    gram, pulls = centred.T @ centred, centred.T @ (y[:kept] - mean_y)
    scale = gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=torch.float64)
    total = ((y[kept:] - mean_y) ** 2).sum().clamp_min(1e-300)
    fits = []
    for shrinkage in _SHRINKAGES:
        weights = torch.linalg.solve(gram + shrinkage * scale, pulls)
        bias = mean_y - mean_x @ weights
        left = ((y[kept:] - x[kept:] @ weights - bias) ** 2).sum()
        fits.append((float(1 - left / total), weights.float(), bias.float()))
    r2, weights, bias = max(fits, key=lambda fit: fit[0])
    return weights, bias, r2
