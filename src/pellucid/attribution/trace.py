"""From a prompt to attribution graphs."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch

from pellucid.attribution.attention.explain import explain_attention
from pellucid.attribution.build import GraphBuilder, Prompt
from pellucid.attribution.checks.causal import causal_check
from pellucid.attribution.columns import SourceTable
from pellucid.attribution.coverage import whole_graph_scores
from pellucid.attribution.explain import Target, TopLogits, explained
from pellucid.attribution.linearise import linearise
from pellucid.attribution.memory import MemoryBudget
from pellucid.attribution.rows import RowStore
from pellucid.attribution.select import Selection, select_features
from pellucid.core.errors import ConfigError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import EDGE_THRESHOLD, NODE_THRESHOLD, surviving
from pellucid.graphs.scores import scores
from pellucid.models.model import LanguageModel
from pellucid.replacement.local import Missing, local_replacement

Precision = Literal["float32", "bfloat16"]


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
        precision: "bfloat16" pulls gradients back in bfloat16 (sums stay in float32), which is
            faster where the machine has it; the rows of the features that survive pruning are then
            computed again in float32, and their error before that is in the graph's metadata.
        max_memory: bytes that the process may hold. Chunk sizes are chosen to honour it.

    Raises:
        PromptError: the prompt is empty, too long or cannot be tokenized.
        DictionaryError: the dictionaries do not fit the model.
        ConfigError: the precision is unknown, or the memory does not suffice.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: LanguageModel,
        prompt: str | Sequence[int],
        dictionaries: DictionarySet | None,
        *,
        missing: Missing | None = None,
        precision: Precision = "float32",
        max_memory: int | None = None,
    ) -> None:
        if precision not in get_args(Precision):
            raise ConfigError(
                f"precision is {precision!r}; use one of {', '.join(get_args(Precision))}"
            )
        ids = model.encode(prompt) if isinstance(prompt, str) else model.encode_ids(prompt)
        if missing is None:
            missing = "neurons" if dictionaries is None else "refuse"
        budget = MemoryBudget(max_memory)
        budget.check_run(model, len(ids), model.block(0).attention.n_heads)
        self.model = model
        local = local_replacement(model, ids, dictionaries, missing)
        self.linear = linearise(local, budget.can_keep)
        self.table = SourceTable(self.linear)
        rough = torch.bfloat16 if precision == "bfloat16" else None
        self.rows = RowStore(self.linear, self.table, budget, rough)
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
        attention: bool = False,
        seed: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> AttributionGraph:
        """The unpruned graph of what the model says at a position, with its scores.

        Args:
            *targets: what to explain; the likeliest next tokens if nothing is given.
            position: the last token that the graph knows of; negative counts from the end.
            max_features: the most features to keep, chosen by influence.
            epsilon: stop early when the unexplored share of influence falls to this.
            attention: say which heads carry the strongest edges, and why they look where they do;
                see `pellucid.attribution.attention.explain.explain_attention`.
            seed: of the random control features of its checks.
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
        metadata = self._metadata(last) | {
            "targets": wanted.records,
            "selected_features": int(selection.chosen.sum()),
            "unexplored_influence": selection.unexplored,
        }
        rows = list(zip(top, numbers, strict=True))
        graph = self._builder.build(wanted, rows, selection, position=last, metadata=metadata)
        if self.rows.rough:
            metadata["precision"] = self._refine(graph, selection)
            graph = self._builder.build(wanted, rows, selection, position=last, metadata=metadata)
        if attention:
            graph = explain_attention(self.linear, self.table, graph, wanted.targets, seed=seed)
        whole = whole_graph_scores(self.table, selection, float(wanted.weights.sum()))
        return graph.noting(scores=scores(graph)._asdict() | whole)

    def _refine(self, graph: AttributionGraph, selection: Selection) -> dict[str, Any]:
        """Compute the rows that survive pruning in full precision; say how rough they were."""
        survives, _ = surviving(graph, NODE_THRESHOLD, EDGE_THRESHOLD)
        features = selection.chosen.nonzero().squeeze(1)
        kept = features[torch.from_numpy(survives[: len(features)])]
        errors = self.rows.refine(kept)
        return {
            "sweep": "bfloat16",
            "rows_computed_again": len(kept),
            "largest_error": float(errors.max()) if len(errors) else 0.0,
            "median_error": float(errors.median()) if len(errors) else 0.0,
        }

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
    precision: Precision = "float32",
    max_memory: int | None = None,
    max_features: int = 4096,
    max_logits: int = 10,
    probability_mass: float = 0.95,
    epsilon: float = 0.0,
    causal: bool = True,
    causal_features: int = 24,
    attention: bool = False,
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
        precision: as for `Trace`.
        max_memory: as for `Trace`.
        max_features: the most features to keep, chosen by influence.
        max_logits: the most next tokens to explain.
        probability_mass: explain the likeliest tokens that together hold this probability.
        epsilon: stop early when the unexplored share of influence falls to this.
        causal: check the top features by intervention.
        causal_features: how many features to check.
        attention: as for `Trace.graph`.
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
    whole = Trace(
        model,
        prompt,
        dictionaries,
        missing=missing,
        precision=precision,
        max_memory=max_memory,
    )
    graph = whole.graph(
        *(targets or [likeliest]),
        max_features=max_features,
        epsilon=epsilon,
        attention=attention,
        seed=seed,
        on_progress=on_progress,
    )
    check = (
        causal_check(whole.linear, graph, features=causal_features, seed=seed) if causal else None
    )
    return graph.noting(causal=check)
