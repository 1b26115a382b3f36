"""The replacement model: every layer's MLP computed by its dictionary."""

from collections.abc import Collection

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.errors import ConfigError
from pellucid.core.types import Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.model import LanguageModel
from pellucid.replacement.functions import mlp_functions
from pellucid.replacement.local import LocalReplacement, Missing, local_replacement
from pellucid.replacement.splice import spliced_logits


class ReplacementModel:
    """A language model composed with transcoders that stand in for its MLPs.

    `logits` forces the computation through the sparse features: no error term. `local` keeps the
    error of one prompt and freezes attention and norms, which is what attribution works on.

    Args:
        model: the language model.
        dictionaries: transcoders, one a layer.

    Raises:
        DictionaryError: the dictionaries belong to another model or have another width.
    """

    def __init__(self, model: LanguageModel, dictionaries: DictionarySet) -> None:
        dictionaries.check_model(model, every_layer=False)
        self.model = model
        self.dictionaries = dictionaries

    @torch.no_grad()
    def logits(
        self,
        ids: Int[Tensor, "B S"],
        mask: Bool[Tensor, "B S"] | None = None,
        layers: Collection[int] | None = None,
    ) -> Float[Tensor, "B S V"]:
        """Logits with the MLPs of `layers` replaced (default: of every layer that has one).

        Raises:
            ConfigError: `layers` names a layer without a dictionary.
            DictionaryError: a dictionary that does not write an MLP's output, or a cross-layer
                transcoder of a layer without those below it.
        """
        return self.tracked_logits(ids, mask, layers)

    def tracked_logits(
        self,
        ids: Int[Tensor, "B S"],
        mask: Bool[Tensor, "B S"] | None = None,
        layers: Collection[int] | None = None,
    ) -> Float[Tensor, "B S V"]:
        """`logits`, followed by autograd where it tracks the dictionaries.

        Raises:
            ConfigError: see `logits`.
            DictionaryError: see `logits`.
        """
        chosen = self.dictionaries.layers if layers is None else sorted(layers)
        missing = sorted(set(chosen) - set(self.dictionaries.layers))
        if missing:
            raise ConfigError(
                f"layer {missing[0]} has no dictionary; layers with one: {self.dictionaries.layers}"
            )
        functions = mlp_functions(self.dictionaries, chosen)
        reads = {layer: self.dictionaries[layer].read_site for layer in chosen}
        sites = {layer: site for layer, site in reads.items() if isinstance(site, Site)}
        return spliced_logits(self.model, functions, ids, mask, sites)

    def local(self, ids: Int[Tensor, " S"], missing: Missing = "refuse") -> LocalReplacement:
        """The local replacement model of one prompt; see `local.decompose`.

        Raises:
            DictionaryError: a layer has no dictionary and nothing stands for it, or one of a kind
                that cannot be traced.
        """
        return local_replacement(self.model, ids, self.dictionaries, missing)
