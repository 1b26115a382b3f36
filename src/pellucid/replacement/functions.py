"""What computes each replaced MLP: a dictionary by itself, or all parts of a cross-layer one."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.core.types import Site, SparseCodes
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.replacement.splice import MlpFunction


def mlp_functions(dictionaries: DictionarySet, layers: Sequence[int]) -> dict[int, MlpFunction]:
    """By layer, the function that stands in for its MLP; call them in the order of the layers.

    Raises:
        DictionaryError: a dictionary that does not write an MLP's output, or a cross-layer
            transcoder of a layer without those below it.
    """
    shared: dict[int, tuple[CrossLayerTranscoder, SparseCodes]] = {}
    functions: dict[int, MlpFunction] = {}
    for layer in layers:
        dictionary = dictionaries[layer]
        if dictionary.write_site != Site("mlp_out", layer):
            raise DictionaryError(
                f"the dictionary of layer {layer} writes {dictionary.write_site}; only one that "
                "writes mlp_out of its layer can replace the MLP"
            )
        if not isinstance(dictionary, CrossLayerTranscoder):
            functions[layer] = dictionary
            continue
        below = [n for n in dictionaries.layers if n < layer and n not in layers]
        if any(isinstance(dictionaries[n], CrossLayerTranscoder) for n in below):
            raise DictionaryError(
                f"layer {layer} of a cross-layer transcoder cannot stand without layer {below[0]}, "
                "whose features write to it too; replace the layers below it as well"
            )
        functions[layer] = _cross_layer_function(dictionary, layer, shared)
    return functions


def _cross_layer_function(
    dictionary: CrossLayerTranscoder,
    layer: int,
    shared: dict[int, tuple[CrossLayerTranscoder, SparseCodes]],
) -> MlpFunction:
    def function(x: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
        for above in [number for number in shared if number >= layer]:  # of an earlier forward
            del shared[above]
        shared[layer] = (dictionary, dictionary.encode(x))
        parts = [
            source.decode(codes, layer - number)
            for number, (source, codes) in shared.items()
            if layer - number < len(source.write_sites)
        ]
        linear = dictionary.skip(x)
        return sum(parts[1:], parts[0]) if linear is None else sum(parts, linear)

    return function
