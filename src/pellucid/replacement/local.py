"""The local replacement model of one prompt: frozen run, active features and errors.

Attention patterns and norm scales are frozen, and at every layer something is written exactly as
features + error + constants (Ameisen et al. 2025, "Circuit Tracing"):

- a transcoder's layer: the MLP's output, its skip connection a linear path beside the features;
- a cross-layer transcoder's layer: the same, by the features of all its layers so far;
- neurons: the same, without error;
- an SAE at a residual site: the residual itself, which nothing passes but through its features and
  error; that layer's MLP answers linearly, its gates frozen;
- a layer left open (`Missing`): its MLP answers linearly, or is an error as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.errors import ConfigError, DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.sae import SAE
from pellucid.models.model import LanguageModel
from pellucid.replacement.features import ActiveFeatures, dictionary_features, neuron_features
from pellucid.replacement.freeze import FrozenLayer, FrozenRun, freeze
from pellucid.replacement.paths import MlpPath, SkipMatrix, frozen_gates, output_bias
from pellucid.replacement.splice import anchor_mask

Missing = Literal["refuse", "neurons", "gates", "error"]
"""What stands for the MLP of a layer without a dictionary: nothing (an error is raised), its
neurons as features, the MLP passed through with frozen gates, or one error node a position."""

RESIDUAL_KINDS = ("resid_pre", "resid_mid", "resid_post")
READABLE_KINDS = ("mlp_in", "resid_mid", "resid_pre")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLayer:
    """One layer, taken apart.

    Attributes:
        active: the features of this layer.
        read_site: what they read.
        write_site: where they, the error and the constant are written: `mlp_out`, or for an SAE the
            residual site, whose value is then their sum.
        error: what the features miss; zero at anchored positions.
        constant: decoder bias, or at anchored positions the whole value.
        anchored: positions that are kept as a constant (BOS).
        shared: whether cross-layer features of lower layers write here too.
        path: how the MLP's output answers its input linearly, beside the features.
        mlp_constant: what the MLP writes beside that path, where `write_site` is not its output.
    """

    active: ActiveFeatures
    read_site: Site
    write_site: Site
    error: Float[Tensor, "S d"]
    constant: Float[Tensor, "S d"]
    anchored: Bool[Tensor, " S"]
    shared: bool = False
    path: MlpPath | None = None
    mlp_constant: Float[Tensor, "S d"] | None = None

    @property
    def cuts(self) -> bool:
        """Whether the residual itself is written, so that nothing else passes."""
        return self.write_site.kind in RESIDUAL_KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReplacement:
    """A frozen run with every layer decomposed. `name` is what the dictionaries are called."""

    run: FrozenRun
    name: str
    layers: tuple[LocalLayer, ...]

    @property
    def n_features(self) -> int:
        """How many features are active, over all layers and positions."""
        return sum(len(layer.active) for layer in self.layers)

    def slots(self, layer: int) -> dict[int, Site]:
        """Where the features of a layer write: by slot of their decoder, the site.

        A cross-layer transcoder writes to a later layer only if that has a part of it too: any
        other layer is explained without it.
        """
        own = self.layers[layer]
        later = range(layer + 1, min(len(self.layers), layer + own.active.n_slots))
        shared = [number for number in later if self.layers[number].shared]
        return {0: own.write_site} | {n - layer: Site("mlp_out", n) for n in shared}


def local_replacement(
    model: LanguageModel,
    ids: Int[Tensor, " S"],
    dictionaries: DictionarySet | None,
    missing: Missing = "refuse",
) -> LocalReplacement:
    """Run a prompt once, freeze it and take every layer apart; see `decompose`.

    Raises:
        DictionaryError: the dictionaries belong to another model, or see `decompose`.
    """
    if dictionaries is not None:
        dictionaries.check_model(model, every_layer=False)
    return decompose(freeze(model, ids), dictionaries, missing)


@torch.no_grad()
def decompose(
    run: FrozenRun, dictionaries: DictionarySet | None, missing: Missing = "refuse"
) -> LocalReplacement:
    """Write every layer of a frozen run as features, error and constants.

    Args:
        run: the frozen run.
        dictionaries: at most one a layer; None for none at all.
        missing: what to do about layers without one.

    Raises:
        ConfigError: `missing` is not one of the choices.
        DictionaryError: a layer has no dictionary, or one of a kind that cannot be traced.
    """
    if missing not in get_args(Missing):
        raise ConfigError(f"missing is {missing!r}; use one of {', '.join(get_args(Missing))}")
    anchored = anchor_mask(run.model, run.ids[None])[0]
    given: Mapping[int, Dictionary] = {} if dictionaries is None else dictionaries.dictionaries
    open_layers = sorted(set(range(len(run.layers))) - set(given))
    if open_layers and missing == "refuse":
        raise DictionaryError(
            f"there is no dictionary for layer {', '.join(map(str, open_layers))} of "
            f"{len(run.layers)}; train the missing layers, or say what stands for them: neurons, "
            "gates or error"
        )
    layers: list[LocalLayer] = []
    for index, frozen in enumerate(run.layers):
        dictionary = given.get(index)
        if dictionary is None:
            layers.append(_open_layer(frozen, index, anchored, missing))
        elif isinstance(dictionary, SAE):
            layers.append(_sae_layer(run, index, dictionary, anchored))
        else:
            layers.append(_transcoder_layer(run, index, dictionary, anchored, layers))
    _check_cuts(layers, run)
    name = "neurons" if dictionaries is None else dictionaries.name
    return LocalReplacement(run=run, name=name, layers=tuple(layers))


def _transcoder_layer(
    run: FrozenRun,
    index: int,
    dictionary: Dictionary,
    anchored: Bool[Tensor, " S"],
    below: list[LocalLayer],
) -> LocalLayer:
    """A layer whose MLP output is predicted, also by the cross-layer features of layers below."""
    frozen, read_site = run.layers[index], dictionary.read_site
    if (
        not isinstance(read_site, Site)
        or read_site.kind not in READABLE_KINDS
        or read_site.layer != index
        or dictionary.write_site != Site("mlp_out", index)
    ):
        raise DictionaryError(
            f"the dictionary of layer {index} maps {read_site} to {dictionary.write_site}; tracing "
            f"takes transcoders that read {', '.join(READABLE_KINDS)} of their layer and write its "
            "mlp_out, and SAEs at residual sites"
        )
    x = frozen.mlp_in if read_site.kind == "mlp_in" else run.residual(read_site)
    active = dictionary_features(dictionary, x, anchored)
    error = frozen.mlp_out - dictionary.b_dec.to(frozen.mlp_out.dtype)
    error = error.index_add(0, active.positions, -active.written())
    shared = isinstance(dictionary, CrossLayerTranscoder)
    for lower, layer in enumerate(below if shared else ()):
        if index - lower < layer.active.n_slots:
            error.index_add_(0, layer.active.positions, -layer.active.written(index - lower))
    kept = (~anchored)[:, None].to(error.dtype)
    path = None
    if dictionary.W_skip is not None:
        if read_site.kind != "mlp_in":
            raise DictionaryError(
                f"the skip transcoder of layer {index} reads {read_site}; one with a skip path "
                "must read mlp_in"
            )
        path = SkipMatrix(matrix=dictionary.W_skip.to(error.dtype), kept=kept)
        error = error - path.apply(x)
    bias = dictionary.b_dec.to(error.dtype).expand_as(error)
    return LocalLayer(
        active=active,
        read_site=read_site,
        write_site=Site("mlp_out", index),
        error=error * kept,
        constant=torch.where(anchored[:, None], frozen.mlp_out, bias),
        anchored=anchored,
        shared=shared,
        path=path,
    )


def _sae_layer(
    run: FrozenRun, index: int, dictionary: SAE, anchored: Bool[Tensor, " S"]
) -> LocalLayer:
    frozen, site = run.layers[index], dictionary.read_site
    if not isinstance(site, Site) or site.kind not in RESIDUAL_KINDS or site.layer != index:
        raise DictionaryError(
            f"the SAE of layer {index} is at {site}; tracing takes SAEs at "
            f"{', '.join(RESIDUAL_KINDS)} of their layer"
        )
    x = run.residual(site)
    active = dictionary_features(dictionary, x, anchored)
    bias = dictionary.b_dec.to(x.dtype).expand_as(x)
    error = (x - bias).index_add(0, active.positions, -active.written())
    gates = frozen_gates(frozen, anchored)
    constant = output_bias(frozen, gates) + gates.input_bias(frozen.block.mlp.b_in)
    return LocalLayer(
        active=active,
        read_site=site,
        write_site=site,
        error=error.masked_fill(anchored[:, None], 0.0),
        constant=torch.where(anchored[:, None], x, bias),
        anchored=anchored,
        path=gates,
        mlp_constant=torch.where(anchored[:, None], frozen.mlp_out, constant),
    )


def _open_layer(
    frozen: FrozenLayer, index: int, anchored: Bool[Tensor, " S"], missing: Missing
) -> LocalLayer:
    """A layer without a dictionary."""
    gates = frozen_gates(frozen, anchored)
    nowhere = torch.ones_like(anchored)
    error = torch.zeros_like(frozen.mlp_out)
    if missing == "neurons":
        constant = output_bias(frozen, gates)
    elif missing == "gates":
        constant = output_bias(frozen, gates) + gates.input_bias(frozen.block.mlp.b_in)
    else:
        constant, error = error, frozen.mlp_out.masked_fill(anchored[:, None], 0.0)
    return LocalLayer(
        active=neuron_features(frozen, gates, anchored if missing == "neurons" else nowhere),
        read_site=Site("mlp_in", index),
        write_site=Site("mlp_out", index),
        error=error,
        constant=torch.where(anchored[:, None], frozen.mlp_out, constant),
        anchored=anchored,
        path=gates if missing == "gates" else None,
    )


def _check_cuts(layers: list[LocalLayer], run: FrozenRun) -> None:
    """Refuse two SAEs at one place: the output of a block is the input of the next."""
    for lower, upper in pairwise(layers):
        if lower.write_site.kind == "resid_post" and upper.write_site.kind == "resid_pre":
            raise DictionaryError(
                f"the SAEs at {lower.write_site} and {upper.write_site} stand at the same place of "
                f"{run.model.name}; leave one of them out"
            )
