"""Two prompts that differ in what is asked about, and what is compared between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from pellucid.core.errors import ConfigError, InterventionError, PromptError
from pellucid.interventions.tracing.metrics import METRIC_NAMES, Metric, MetricName, metric_of
from pellucid.models.model import LanguageModel

Direction = Literal["denoise", "noise"]
_LEAST_GAP = 1e-3
Prompt = str | Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contrast:
    """A clean and a corrupt prompt of the same length, token for token.

    Attributes:
        clean, corrupt: ids, the special first token included.
        clean_tokens, corrupt_tokens: their texts.
        answer, other: ids of the answers that the two prompts ask for.
        answer_text, other_text: their texts.
        metric: of the logits at the last position; higher at the clean prompt as a rule.
        metric_name: of it.
        clean_value, corrupt_value: the metric of each prompt.
    """

    clean: Int[Tensor, " S"]
    corrupt: Int[Tensor, " S"]
    clean_tokens: list[str]
    corrupt_tokens: list[str]
    answer: int
    other: int
    answer_text: str
    other_text: str
    metric: Metric
    metric_name: str
    clean_value: float
    corrupt_value: float

    @property
    def differing(self) -> list[int]:
        """Positions where the prompts have different tokens."""
        return (self.clean != self.corrupt).nonzero().squeeze(1).tolist()

    def ends(self, direction: Direction) -> tuple[Int[Tensor, " S"], Int[Tensor, " S"]]:
        """The prompt that is patched and the prompt that the patches come from.

        Args:
            direction: `denoise` patches clean values into the corrupt run, `noise` the reverse.

        Raises:
            ConfigError: another direction.
        """
        if direction not in get_args(Direction):
            raise ConfigError(f"direction is {direction!r}; use denoise or noise")
        return (self.corrupt, self.clean) if direction == "denoise" else (self.clean, self.corrupt)

    def effects(self, logits: Tensor, direction: Direction) -> Tensor:
        """How much of the gap each row's logits have crossed: 0 patched nothing, 1 everything."""
        base, source = self.corrupt_value, self.clean_value
        if direction == "noise":
            base, source = source, base
        return (self.metric(logits) - base) / (source - base)


@torch.no_grad()
def contrast(
    model: LanguageModel,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: str | int | None = None,
    other: str | int | None = None,
    metric: MetricName | Metric = "logit_difference",
) -> Contrast:
    """Two prompts and their metric, checked.

    Args:
        model: that both are given to.
        clean: text, or ids.
        corrupt: the same with something changed, token for token as long.
        answer: the token that the clean prompt should be answered by (text or id); the model's
            own most probable one if not given.
        other: the same of the corrupt prompt.
        metric: `logit_difference` of answer and other, `probability` of the answer, `kl` (minus
            the divergence from the clean distribution), or any function from logits [N, V] at the
            last position to [N].

    Raises:
        PromptError: a prompt cannot be read, or they are not of one length.
        InterventionError: an answer is not one token, both are the same, or the metric does not
            tell the prompts apart.
        ConfigError: another metric.
    """
    pair = [_ids(model, prompt) for prompt in (clean, corrupt)]
    texts = [model.token_texts(ids) for ids in pair]
    _require_aligned(texts)
    logits = model.logits(torch.stack(pair))[:, -1]
    wanted = [
        int(row.argmax()) if given is None else _answer_id(model, given, option)
        for row, given, option in zip(logits, (answer, other), ("answer", "other"), strict=True)
    ]
    named = model.token_texts(wanted)
    if callable(metric):
        function, name = metric, getattr(metric, "__name__", type(metric).__name__)
    elif metric in METRIC_NAMES:
        function, name = metric_of(metric, logits[0], *wanted), metric
    else:
        raise ConfigError(f"metric is {metric!r}; use {', '.join(METRIC_NAMES)} or a function")
    if name == "logit_difference" and wanted[0] == wanted[1]:
        raise InterventionError(
            f"answer and other are the same token {named[0]!r}; give two different ones, or choose "
            "prompts that the model answers differently"
        )
    values = function(logits).tolist()
    if not abs(values[0] - values[1]) > _LEAST_GAP:
        raise InterventionError(
            f"the metric {name} is {values[0]:.4g} on the clean prompt and {values[1]:.4g} on the "
            "corrupt one, so there is no difference to trace; choose other prompts or answers"
        )
    return Contrast(
        clean=pair[0],
        corrupt=pair[1],
        clean_tokens=texts[0],
        corrupt_tokens=texts[1],
        answer=wanted[0],
        other=wanted[1],
        answer_text=named[0],
        other_text=named[1],
        metric=function,
        metric_name=name,
        clean_value=values[0],
        corrupt_value=values[1],
    )


@torch.no_grad()
def single(
    model: LanguageModel,
    clean: Prompt,
    *,
    answer: str | int | None = None,
    other: str | int | None = None,
    metric: MetricName = "probability",
) -> Contrast:
    """One prompt and its metric, for methods that corrupt it themselves or do not patch at all.

    Args:
        model: that it is given to.
        clean: text, or ids.
        answer: the token to follow; the model's own most probable one if not given.
        other: a rival; the second most probable one if not given.
        metric: of the logits at the last position.

    Returns:
        A contrast whose corrupt prompt is the clean one.

    Raises:
        PromptError: the prompt cannot be read.
        InterventionError: an answer is not one token, or both are the same.
    """
    ids = _ids(model, clean)
    logits = model.logits(ids[None])[0, -1]
    first = int(logits.argmax()) if answer is None else _answer_id(model, answer, "answer")
    ranked = [token for token in logits.topk(2).indices.tolist() if token != first]
    second = ranked[0] if other is None else _answer_id(model, other, "other")
    texts, named = model.token_texts(ids), model.token_texts([first, second])
    if first == second:
        raise InterventionError(
            f"answer and other are the same token {named[0]!r}; give two different ones"
        )
    function = metric_of(metric, logits, first, second)
    value = float(function(logits[None])[0])
    return Contrast(
        clean=ids,
        corrupt=ids,
        clean_tokens=texts,
        corrupt_tokens=texts,
        answer=first,
        other=second,
        answer_text=named[0],
        other_text=named[1],
        metric=function,
        metric_name=metric,
        clean_value=value,
        corrupt_value=value,
    )


def _ids(model: LanguageModel, prompt: Prompt) -> Int[Tensor, " S"]:
    return model.encode(prompt) if isinstance(prompt, str) else model.encode_ids(prompt)


def _require_aligned(texts: Sequence[list[str]]) -> None:
    clean, corrupt = texts
    if clean == corrupt:
        raise PromptError("clean and corrupt are the same prompt; change what is asked about")
    if len(clean) != len(corrupt):
        first = next(
            (n for n, (a, b) in enumerate(zip(clean, corrupt, strict=False)) if a != b),
            min(len(clean), len(corrupt)),
        )
        raise PromptError(
            f"clean has {len(clean)} tokens and corrupt {len(corrupt)} (they part at token "
            f"{first}: {clean[first:][:3]} against {corrupt[first:][:3]}); patching goes token for "
            "token, so use words of as many tokens"
        )


def _answer_id(model: LanguageModel, given: str | int, option: str) -> int:
    """The one token that an answer is.

    A word inside a text may have another token than at its beginning, so it is tried after a
    space first.
    """
    if isinstance(given, int):
        if not 0 <= given < model.vocab_size:
            raise InterventionError(
                f"{option} is token {given}, outside the vocabulary; use 0 to "
                f"{model.vocab_size - 1}"
            )
        return given
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise InterventionError(f"{option} is {given!r} and there is no tokenizer; give its id")
    for text in (" " + given, given):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return int(ids[0])
    parts = model.token_texts(ids)
    unknown = tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids
    what = "a word that the model does not know" if unknown else f"{len(ids)} tokens {parts}"
    raise InterventionError(f"{option} is {given!r}, {what}; give one token of its vocabulary")
