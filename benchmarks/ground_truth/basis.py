"""One form for everything that an MLP's output can be written in: neurons, transcoders, CLTs.

A basis writes the output of the MLP at layer m as

    constant_m + sum over layers l <= m of activations_l @ decoder_(l, m)  + error_m

with activations_l a function of the MLP's input at layer l. Only a cross-layer basis has decoders
with l < m. Shape suffixes: B rows, S positions, F features, d model width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.types import Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall
from pellucid.replacement.freeze import Taps
from pellucid.replacement.splice import anchor_mask

Encoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """A basis of one model's MLP outputs.

    Attributes:
        name: of the row in the table.
        encoders: by layer, from `mlp_in` [..., d] to dense activations [..., F].
        rows: by layer, the directions that the features' pre-activations read, [F, d]; None for
            features that read more than one direction (gated neurons).
        biases: by layer, what is added to those pre-activations, [F]; None where `rows` is.
        decoders: by layer of the feature and layer written to, [F, d].
        constants: by layer, what is written whatever the activations, [d].
        dictionaries: the same as a set for `pellucid.trace`; None for the model's own neurons.
    """

    name: str
    encoders: tuple[Encoder, ...]
    rows: tuple[Float[Tensor, "F d"], ...] | None
    biases: tuple[Float[Tensor, " F"], ...] | None
    decoders: Mapping[tuple[int, int], Float[Tensor, "F d"]]
    constants: tuple[Float[Tensor, " d"], ...]
    dictionaries: DictionarySet | None

    @property
    def n_layers(self) -> int:
        """How many layers it writes."""
        return len(self.constants)

    def writes_to(self, layer: int) -> list[int]:
        """The layers whose MLP output the features of `layer` write to."""
        return [target for source, target in sorted(self.decoders) if source == layer]

    def output(self, layer: int, activations: list[Tensor]) -> Tensor:
        """What the basis writes at a layer, given the activations of all layers up to it."""
        parts = [
            activations[source] @ decoder
            for (source, target), decoder in self.decoders.items()
            if target == layer
        ]
        return sum(parts, self.constants[layer])


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """The active features of one prompt: n nodes, sorted by layer, position and index."""

    layers: Int[Tensor, " n"]
    positions: Int[Tensor, " n"]
    indices: Int[Tensor, " n"]
    activations: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.layers)

    def places(self) -> list[tuple[int, int, int]]:
        """Layer, position and index of every node."""
        columns = (self.layers, self.positions, self.indices)
        return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One prompt on which methods are judged.

    `metric` is the right answer's logit less the mean logit at the last position, which is what a
    graph's logit node stands for. The model must answer the prompt right.
    """

    model: LanguageModel
    ids: Int[Tensor, " S"]
    answer: int

    def metric(self, logits: Float[Tensor, "B S V"]) -> Float[Tensor, " B"]:
        """The metric of each row."""
        last = logits[:, -1]
        return last[:, self.answer] - last.mean(dim=1)

    def anchored(self) -> Bool[Tensor, " S"]:
        """Positions whose MLP is never replaced (see `replacement.splice.anchor_mask`)."""
        return anchor_mask(self.model, self.ids[None])[0]


@torch.no_grad()
def mlp_values(case: Case) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of every MLP in the real model, [S, d] each."""
    layers = range(case.model.n_layers)
    reads, writes = ([Site(kind, layer) for layer in layers] for kind in ("mlp_in", "mlp_out"))
    values = case.model.activations(case.ids[None], [*reads, *writes])
    return [values[site][0] for site in reads], [values[site][0] for site in writes]


@torch.no_grad()
def active_nodes(case: Case, basis: Basis) -> Nodes:
    """Every feature that is not zero in the real model's run, but for anchored positions."""
    inputs, _ = mlp_values(case)
    free = ~case.anchored()
    found: list[Tensor] = []
    activations: list[Tensor] = []
    for layer, x_Sd in enumerate(inputs):
        a_SF = basis.encoders[layer](x_Sd) * free[:, None]
        position, index = a_SF.nonzero(as_tuple=True)
        found.append(torch.stack([torch.full_like(position, layer), position, index]))
        activations.append(a_SF[position, index])
    layers, positions, indices = torch.cat(found, dim=1)
    return Nodes(
        layers=layers, positions=positions, indices=indices, activations=torch.cat(activations)
    )


def contributions(basis: Basis, nodes: Nodes, length: int) -> dict[tuple[int, int], Tensor]:
    """What the features of each layer write to each layer: decoder key -> [S, d]."""
    found = {}
    for (source, target), decoder in basis.decoders.items():
        own = nodes.layers == source
        written = decoder[nodes.indices[own]] * nodes.activations[own, None]
        total = written.new_zeros(length, decoder.shape[1])
        found[source, target] = total.index_add(0, nodes.positions[own], written)
    return found


def masked_taps(case: Case, basis: Basis, masks: list[Float[Tensor, "B S F"]]) -> Taps:
    """Taps that write every MLP's output from the masked features alone, without error.

    Features answer to the changed inputs they find. Anchored positions keep their own MLP.

    Args:
        case: the prompt.
        basis: the features.
        masks: by layer, what every activation is multiplied with.
    """
    keep_S1 = case.anchored()[:, None]
    activations: list[Tensor] = []

    def read(value: Tensor, _call: TapCall, layer: int) -> None:
        if layer == 0:
            activations.clear()
        activations.append(basis.encoders[layer](value) * masks[layer])

    def write(value: Tensor, _call: TapCall, layer: int) -> Tensor:
        return torch.where(keep_S1, value, basis.output(layer, activations).expand_as(value))

    taps: Taps = []
    for layer in range(basis.n_layers):

        def read_here(value: Tensor, call: TapCall, layer: int = layer) -> None:
            read(value, call, layer)

        def write_here(value: Tensor, call: TapCall, layer: int = layer) -> Tensor:
            return write(value, call, layer)

        taps += [(Site("mlp_in", layer), read_here), (Site("mlp_out", layer), write_here)]
    return taps


def from_dictionaries(name: str, dictionaries: DictionarySet) -> Basis:
    """Transcoders from `mlp_in` to `mlp_out` of every layer."""
    layers = [dictionaries[layer] for layer in range(len(dictionaries))]

    def encoder(layer: int) -> Encoder:
        dictionary = layers[layer]

        def encode(x: Tensor) -> Tensor:
            codes = dictionary.encode(x.reshape(-1, x.shape[-1]))
            dense = codes.values.new_zeros(len(codes.values), codes.num_features)
            dense = dense.scatter_add(1, codes.indices.long(), codes.values)
            return dense.view(*x.shape[:-1], -1)

        return encode

    return Basis(
        name=name,
        encoders=tuple(encoder(layer) for layer in range(len(layers))),
        rows=tuple(each.W_enc.detach() for each in layers),
        biases=tuple(each.b_enc.detach() for each in layers),
        decoders={(n, n): each.W_dec.detach() for n, each in enumerate(layers)},
        constants=tuple(each.b_dec.detach() for each in layers),
        dictionaries=dictionaries,
    )
