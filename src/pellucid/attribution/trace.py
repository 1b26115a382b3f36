"""From a prompt to attribution graphs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from pellucid.attribution.build import GraphBuilder, Prompt
from pellucid.attribution.causal import causal_check
from pellucid.attribution.columns import SourceTable
from pellucid.attribution.explain import Target, TopLogits, explained
from pellucid.attribution.linearise import linearise
from pellucid.attribution.rows import RowStore
from pellucid.attribution.select import select_features
from pellucid.core.errors import ConfigError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import scores
from pellucid.models.model import LanguageModel
from pellucid.replacement.local import Missing, local_replacement


class Trace:
    """One prompt, run and frozen once; every graph of it is put together from shared rows.

    Rows are computed when a graph first needs them and kept, so that graphs of other targets, and
    of other prefixes of the prompt, cost only what is new in them. All the steps of a chain of
    thought are prefixes of one text: one forward serves them all.

    Args:
        model: the language model.
        prompt: text, or token ids.
        dictionaries: transcoders, cross-layer transcoders or SAEs of this model, at most one a
            layer; None for the model's own neurons.
        missing: what stands for the MLP of a layer without one; see
            `pellucid.replacement.local.Missing`. Without any dictionaries: neurons.

    Raises:
        PromptError: the prompt is empty, too long or cannot be tokenized.
        DictionaryError: the dictionaries do not fit the model.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: LanguageModel,
        prompt: str | Sequence[int],
        dictionaries: DictionarySet | None,
        *,
        missing: Missing | None = None,
    ) -> None:
        ids = model.encode(prompt) if isinstance(prompt, str) else model.encode_ids(prompt)
        if missing is None:
            missing = "neurons" if dictionaries is None else "refuse"
        self.model = model
        self.linear = linearise(local_replacement(model, ids, dictionaries, missing))
        self.table = SourceTable(self.linear)
        self.rows = RowStore(self.linear, self.table)
        self._builder = GraphBuilder(
            self.linear, self.rows, Prompt(prompt, model.token_texts(ids.tolist()))
        )

    @property
    def n_positions(self) -> int:
        """How many tokens the prompt has, the first special one included."""
        return self.table.n_positions

    @torch.no_grad()
    def graph(
        self,
        *targets: Target,
        position: int = -1,
        max_features: int = 4096,
        epsilon: float = 0.0,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> AttributionGraph:
        """The unpruned graph of what the model says at a position, with its scores.

        Args:
            *targets: what to explain; the likeliest next tokens if nothing is given.
            position: the last token that the graph knows of; negative counts from the end.
            max_features: the most features to keep, chosen by influence.
            epsilon: stop early when the unexplored share of influence falls to this.
            on_progress: called with (features done, features at most).

        Raises:
            ConfigError: a limit, a position or a target is out of range.
            PromptError: a target's token is not in the vocabulary, or its feature not active.
        """
        last = position + self.n_positions if position < 0 else position
        if not 0 <= last < self.n_positions:
            raise ConfigError(
                f"position {position} is not in the prompt of {self.n_positions} tokens; use "
                f"{-self.n_positions} to {self.n_positions - 1}"
            )
        _check_limits(max_features, epsilon)
        wanted = explained(self.linear, targets or [TopLogits()], last)
        top, numbers = self.rows.explain(wanted.targets)
        selection = select_features(
            self.rows,
            top,
            [wanted.weights[rows] for rows in numbers],
            max_features=max_features,
            epsilon=epsilon,
            on_progress=on_progress,
        )
        graph = self._builder.build(
            wanted,
            list(zip(top, numbers, strict=True)),
            selection,
            position=last,
            metadata=self._metadata(last)
            | {
                "targets": wanted.records,
                "selected_features": int(selection.chosen.sum()),
                "unexplored_influence": selection.unexplored,
            },
        )
        return replace(graph, scores=scores(graph)._asdict())

    def _metadata(self, last: int) -> dict[str, Any]:
        run, local = self.linear.local.run, self.linear.local
        return {
            "model": self.model.name,
            "model_fingerprint": self.model.fingerprint(),
            "dictionaries": local.name,
            "token_ids": run.ids[: last + 1].tolist(),
            "active_features": int((self.table.feature_positions <= last).sum()),
        }


def _check_limits(max_features: int, epsilon: float) -> None:
    if max_features < 1:
        raise ConfigError(f"max_features is {max_features}; give a number of at least 1")
    if not 0 <= epsilon < 1:
        raise ConfigError(f"epsilon is {epsilon}; give a share from 0 to below 1")


def trace(
    model: LanguageModel,
    prompt: str | Sequence[int],
    dictionaries: DictionarySet | None,
    *,
    targets: Sequence[Target] = (),
    missing: Missing | None = None,
    max_features: int = 4096,
    max_logits: int = 10,
    probability_mass: float = 0.95,
    epsilon: float = 0.0,
    causal: bool = True,
    causal_features: int = 24,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> AttributionGraph:
    """Trace how a model arrives at its next token (Ameisen et al. 2025, "Circuit Tracing").

    Args:
        model: the language model.
        prompt: text, or token ids.
        dictionaries: as for `Trace`.
        targets: what to explain instead of the likeliest next tokens.
        missing: as for `Trace`.
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
    _check_limits(max_features, epsilon)
    likeliest = TopLogits(max_logits=max_logits, probability_mass=probability_mass)
    whole = Trace(model, prompt, dictionaries, missing=missing)
    graph = whole.graph(
        *(targets or [likeliest]),
        max_features=max_features,
        epsilon=epsilon,
        on_progress=on_progress,
    )
    check = (
        causal_check(whole.linear, graph, features=causal_features, seed=seed) if causal else None
    )
    return replace(graph, causal=check)
