"""From a prompt to a causally checked attribution graph."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from pellucid.attribution.build import build_graph
from pellucid.attribution.causal import causal_check
from pellucid.attribution.linearise import linearise
from pellucid.attribution.select import select_rows
from pellucid.attribution.sweep import SourceTable
from pellucid.attribution.targets import logit_targets
from pellucid.core.errors import ConfigError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import scores
from pellucid.models.model import LanguageModel
from pellucid.replacement.model import ReplacementModel


@torch.no_grad()
def trace(
    model: LanguageModel,
    prompt: str | Sequence[int],
    dictionaries: DictionarySet,
    *,
    max_features: int = 4096,
    max_logits: int = 10,
    probability_mass: float = 0.95,
    epsilon: float = 0.0,
    causal: bool = True,
    causal_features: int = 24,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> AttributionGraph:
    """Trace how a model arrives at its next token (Anthropic, "Circuit Tracing", 2025).

    Args:
        model: the language model.
        prompt: text, or token ids.
        dictionaries: transcoders of this model, one a layer.
        max_features: the most features to keep, chosen by influence.
        max_logits: the most next tokens to explain.
        probability_mass: explain the likeliest tokens that together hold this probability.
        epsilon: stop early when the unexplored share of influence falls to this.
        causal: check the top features by intervention.
        causal_features: how many features to check.
        seed: of the random control features.
        on_progress: called with (features done, features at most).

    Returns:
        The unpruned graph with its scores and, if asked for, its causal check.

    Raises:
        PromptError: the prompt is empty, too long or cannot be tokenized.
        DictionaryError: the dictionaries do not fit the model.
        ConfigError: a limit is out of range.
    """
    for name, value in (("max_features", max_features), ("max_logits", max_logits)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; give a number of at least 1")
    if not 0 < probability_mass <= 1 or not 0 <= epsilon < 1:
        raise ConfigError(
            f"probability_mass is {probability_mass} and epsilon {epsilon}; both are shares "
            "between 0 and 1"
        )
    ids = model.encode(prompt) if isinstance(prompt, str) else model.encode_ids(prompt)
    linear = linearise(ReplacementModel(model, dictionaries).local(ids))
    table = SourceTable(linear)
    logits = logit_targets(linear, max_logits=max_logits, probability_mass=probability_mass)
    selection = select_rows(
        linear,
        table,
        logits,
        max_features=max_features,
        epsilon=epsilon,
        on_progress=on_progress,
    )
    graph = build_graph(linear, table, logits, selection, prompt=prompt)
    check = causal_check(linear, graph, features=causal_features, seed=seed) if causal else None
    return replace(graph, scores=scores(graph)._asdict(), causal=check)
