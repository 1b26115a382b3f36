"""A language model: a Hugging Face module with its description, sites and linear pieces."""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from pellucid.core.errors import ModelError, SiteError
from pellucid.core.places import HeadSite
from pellucid.core.types import AnySite, ModuleSite, Site
from pellucid.models import prompt
from pellucid.models.arch import ArchSpec
from pellucid.models.families import FAMILIES
from pellucid.models.heads import head_columns
from pellucid.models.linear import BlockLinear, NormWeights, read_block, read_norm
from pellucid.models.query_key import QueryKeyWeights, Rotation, read_query_key, read_rotation
from pellucid.models.taps import TapFunction, TapPoint, capture, submodule, tapped

_SAMPLES_PER_WEIGHT = 64


class Edit(Protocol):
    """What `LanguageModel.edit` takes: see `pellucid.interventions.spec.Intervention`."""

    def attach(
        self, model: "LanguageModel", edits: "Sequence[Edit]", **options: Any
    ) -> AbstractContextManager[Any]:
        """A context in which all `edits`, this one among them, act on the model's forwards."""


class LanguageModel:
    """Composes a Hugging Face module, put in eval mode with all parameters frozen.

    Made by `load_model`. A module without a known family has `spec` None: it takes `ModuleSite`s
    only, and everything that needs the family's description raises `SiteError`.

    Args:
        module: any module called as `module(input_ids=..., attention_mask=...)`.
        tokenizer: None if only token ids will be given.
        spec: the family's description.
        name: of the model, for manifests and messages.

    Attributes:
        finetuned_from: fingerprint of the model whose weights these were before a small update;
            that model's dictionaries fit this one too. None if there is none.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        spec: ArchSpec | None,
        name: str,
    ) -> None:
        self.module: Any = module.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.spec = spec
        self.name = name
        self.finetuned_from: str | None = None
        self.special_tokens = prompt.special_tokens(tokenizer, getattr(module, "config", None))

    def __repr__(self) -> str:
        family = self.spec.family if self.spec else type(self.module).__name__
        return f"LanguageModel({self.name!r}, {family}, {self.dtype}, {self.device})"

    # Dimensions

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self._dimension("num_hidden_layers")

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self._dimension("hidden_size")

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._dimension("vocab_size")

    @property
    def context_length(self) -> int:
        """The most tokens the model reads at once."""
        return self._dimension("max_position_embeddings")

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return next(self.module.parameters()).dtype

    @property
    def logit_softcap(self) -> float | None:
        """The c in `logits = c tanh(x / c)`, None where logits are not capped."""
        name = self._described().logit_softcap
        return None if name is None else getattr(self.module.config, name)

    # Tokens

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text under the prompt policy (see `models.prompt`), of any length.

        Raises:
            PromptError: there is no tokenizer, or it refuses the text.
        """
        return self.special_tokens.with_first(prompt.tokenize(text, self.tokenizer))

    def encode(self, text: str) -> Int[Tensor, " S"]:
        """The ids of a prompt, checked.

        Raises:
            PromptError: the prompt is empty, longer than the context, or has an unknown word.
        """
        ids = prompt.tokenize(text, self.tokenizer)
        assert self.tokenizer is not None
        prompt.check_known(text, ids, self.tokenizer)
        return self.encode_ids(ids)

    def encode_ids(self, ids: Sequence[int]) -> Int[Tensor, " S"]:
        """Ids given as numbers, under the same policy and checks as `encode`.

        Raises:
            PromptError: an id is out of range, or the prompt is empty or too long.
        """
        whole = self.special_tokens.with_first(ids)
        prompt.check_prompt(
            whole,
            self.special_tokens,
            vocab_size=self.vocab_size,
            context_length=self.context_length,
        )
        return torch.tensor(whole, device=self.device)

    def token_texts(self, ids: Sequence[int] | Int[Tensor, " S"]) -> list[str]:
        """Each token's own text, or its number in angle brackets without a tokenizer."""
        numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        if self.tokenizer is None:
            return [f"<{number}>" for number in numbers]
        return [self.tokenizer.decode([number]) for number in numbers]

    def special_token_mask(self, ids: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Where `ids` holds bos, eos or pad, which training and statistics leave out."""
        return prompt.special_token_mask(ids, self.special_tokens)

    # Running

    def forward(self, ids: Int[Tensor, "B S"], mask: Tensor | None = None) -> Any:
        """Run the module once and return what it returns.

        Args:
            ids: token ids.
            mask: `[B, S]`, true (or 1) at real tokens; padding may be left or right.
        """
        arguments: dict[str, Any] = {"input_ids": ids.to(self.device)}
        if self.spec is not None:
            arguments["use_cache"] = False
        if mask is not None:
            mask = mask.to(self.device).long()
            arguments["attention_mask"] = mask
            if self.spec is not None:
                arguments["position_ids"] = prompt.position_ids(mask)
        return self.module(**arguments)

    def logits(self, ids: Int[Tensor, "B S"], mask: Tensor | None = None) -> Float[Tensor, "B S V"]:
        """Next-token logits; at padding they mean nothing.

        Raises:
            ModelError: the module has no language-model head.
        """
        output = self.forward(ids, mask)
        if not isinstance(getattr(output, "logits", None), Tensor):
            raise ModelError(
                f"{self.name} ({type(self.module).__name__}) gives no logits; use a model with a "
                "language-model head"
            )
        return output.logits

    def activations(
        self, ids: Int[Tensor, "B S"], sites: Sequence[AnySite], mask: Tensor | None = None
    ) -> dict[AnySite, Float[Tensor, "B S d"]]:
        """The values at some sites, computing nothing after the last of them.

        Raises:
            SiteError: the model has no such site.
        """
        points = {site: self.point(site) for site in sites}
        values = capture(self.module, list(points.values()), lambda: self.forward(ids, mask))
        return {site: values[point] for site, point in points.items()}

    def tapped(
        self, taps: Sequence[tuple[TapPoint | AnySite, TapFunction]]
    ) -> AbstractContextManager[None]:
        """`taps.tapped` on this model, with sites for points.

        Raises:
            SiteError: the model has no such site.
        """
        points = [
            (where if isinstance(where, TapPoint) else self.point(where), function)
            for where, function in taps
        ]
        return tapped(self.module, points)

    def edit(self, *edits: Edit, **options: Any) -> AbstractContextManager[Any]:
        """A context in which every forward of this thread is edited; it gives a receipt.

        Args:
            *edits: interventions, at least one.
            **options: of `pellucid.interventions.run.edit`.

        Raises:
            SiteError: there is no edit.
        """
        if not edits:
            raise SiteError("edit got no intervention; give at least one")
        return edits[0].attach(self, edits, **options)

    # Places

    def point(self, site: AnySite) -> TapPoint:
        """Where a site is.

        Raises:
            SiteError: the model has no such site.
        """
        if isinstance(site, ModuleSite):
            submodule(self.module, site.path)
            return TapPoint(site.path, site.side)
        return self._described(site).point(site, self.n_layers)

    def head_point(self, site: HeadSite) -> tuple[TapPoint, Int[Tensor, " n"]]:
        """Where a head's queries, keys, values or outputs are, and their columns there.

        Raises:
            SiteError: the model has no such layer or head.
        """
        self._block_path(site.layer)
        return head_columns(self.module, self._described(), site)

    def attention_pattern_point(self, layer: int) -> TapPoint:
        """The output of a block's attention; there `call.outputs[1]` is its pattern."""
        return TapPoint(self._block_path(layer, self._described().attention), "output")

    def unembedding_point(self) -> TapPoint:
        """The unembedding's output: logits before any softcap."""
        return TapPoint(self._described().unembedding, "output")

    # Linear pieces

    def block(self, layer: int) -> BlockLinear:
        """The frozen linear pieces of a block.

        Raises:
            SiteError: no such layer, or no known family.
        """
        self._block_path(layer)
        return read_block(self.module, self._described(), layer)

    def query_key(self, layer: int) -> QueryKeyWeights:
        """What the scores of a block's attention are made of.

        Raises:
            SiteError: no such layer, or no known family.
        """
        self._block_path(layer)
        return read_query_key(self.module, self._described(), layer)

    def rotation(self, layer: int, length: int) -> Rotation | None:
        """How a block rotates queries and keys at positions 0 to `length` - 1, None if not.

        Raises:
            SiteError: no such layer, or no known family.
        """
        self._block_path(layer)
        return read_rotation(self.module, self._described(), layer, length)

    def final_norm(self) -> NormWeights:
        """The norm before the unembedding."""
        spec = self._described()
        return read_norm(self.module, spec.norm, spec.final_norm)

    def unembedding(self) -> Float[Tensor, "V d"]:
        """The rows that the final norm's output is multiplied with to give (uncapped) logits."""
        return self._unembedding_module().weight.detach()

    def unembedding_bias(self) -> Float[Tensor, " V"] | None:
        """Added to the (uncapped) logits, None where there is none."""
        bias = self._unembedding_module().bias
        return None if bias is None else bias.detach()

    def token_embedding(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d"]:
        """What each token adds at `embed`: its embedding, scaled where the family scales it."""
        return submodule(self.module, self._described().embedding)(ids.to(self.device))

    # Identity

    def fingerprint(self) -> str:
        """A short hash of the architecture and of a sample of every weight.

        The weights are rounded to bfloat16 first, so that loading a model in float32 or bfloat16
        gives the same fingerprint. Dictionaries record it and refuse any other model.
        """
        digest = hashlib.sha256()
        config = getattr(self.module, "config", None)
        digest.update(f"{self.spec.family if self.spec else None};".encode())
        for name in ("model_type", "num_attention_heads", "num_key_value_heads"):
            digest.update(f"{name}={getattr(config, name, None)};".encode())
        for name, weight in sorted(self.module.named_parameters()):
            digest.update(f"{name}{tuple(weight.shape)};".encode())
            flat = weight.flatten()
            sample = flat[:: max(1, flat.numel() // _SAMPLES_PER_WEIGHT)]
            digest.update(sample.bfloat16().view(torch.int16).cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _dimension(self, name: str) -> int:
        value = getattr(getattr(self.module, "config", None), name, None)
        if not isinstance(value, int):
            raise ModelError(
                f"the configuration of {self.name} ({type(self.module).__name__}) has no {name!r}; "
                "use a transformers model"
            )
        return value

    def _described(self, site: Site | None = None) -> ArchSpec:
        if self.spec is None:
            what = "this operation" if site is None else f"site {site}"
            raise SiteError(
                f"{what} needs a known family ({', '.join(FAMILIES)}), and {self.name} is a "
                f"{type(self.module).__name__}; name module paths instead, as in "
                "'encoder.layer.0.output:input'"
            )
        return self.spec

    def _block_path(self, layer: int, inside: str | None = None) -> str:
        spec = self._described()
        if not 0 <= layer < self.n_layers:
            raise SiteError(
                f"layer {layer} does not exist in {self.name}; use 0 to {self.n_layers - 1}"
            )
        return spec.block_path(layer, inside)

    def _unembedding_module(self) -> Any:
        return submodule(self.module, self._described().unembedding)
