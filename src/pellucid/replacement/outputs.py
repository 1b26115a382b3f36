"""What dictionaries make of activations as they are: each layer by itself, nothing spliced in."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import AnySite, SparseCodes
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet


class LayerOutput(NamedTuple):
    """The features of one layer, and what stands in for its MLP's output."""

    codes: SparseCodes
    written: Float[Tensor, "N d"]


def layer_outputs(
    dictionaries: DictionarySet, values: Mapping[AnySite, Float[Tensor, "N d"]]
) -> dict[int, LayerOutput]:
    """By layer, what the dictionaries write given the values of the sites they read.

    A layer of a cross-layer transcoder gets what all its layers so far write to it.
    """
    outputs: dict[int, LayerOutput] = {}
    for layer, dictionary in dictionaries.dictionaries.items():
        x = values[dictionary.read_site]
        codes = dictionary.encode(x)
        written = dictionary.decode(codes)
        linear = dictionary.skip(x)
        if linear is not None:
            written = written + linear
        if isinstance(dictionary, CrossLayerTranscoder):
            for lower, output in outputs.items():
                source = dictionaries[lower]
                if layer - lower < len(source.write_sites):
                    written = written + source.decode(output.codes, layer - lower)
        outputs[layer] = LayerOutput(codes, written)
    return outputs
