"""A fine-tuning run between two steps: the text, the dictionaries, and how to save and go on."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.core.config import config_to_dict
from pellucid.core.errors import DictionaryError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.distributed.processes import ALONE
from pellucid.harvest.live import FORWARD_TOKENS
from pellucid.harvest.rows import Row, RowBatch, TextPosition, TokenRows, padded_batches
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.replacement.model import ReplacementModel
from pellucid.training.finetune.before import Before, measure_before
from pellucid.training.finetune.config import FinetuneConfig
from pellucid.training.finetune.objective import Terms, original_run, scored, terms
from pellucid.training.finetune.subject import Subject, set_fingerprint
from pellucid.training.run_checkpoint import RunCheckpoint

_TOKENS_BEFORE = 16_384
"""How many tokens are read to measure what the terms are before, in a run of more than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetunePlan:
    """Everything that, with a model, dictionaries and a text, decides the result of a run.

    Attributes:
        config: the settings.
        total_tokens: how many to train on.
        context_length: tokens of text the model reads at once.
        forward_tokens: positions in one forward pass; fewer take less memory.
    """

    config: FinetuneConfig
    total_tokens: int
    context_length: int
    forward_tokens: int = FORWARD_TOKENS

    @property
    def total_steps(self) -> int:
        """How many whole batches the tokens make."""
        return max(1, self.total_tokens // self.config.batch_tokens)

    def identity(
        self, model: LanguageModel, dictionaries: DictionarySet, source: TextSource
    ) -> dict[str, Any]:
        """What must be equal for two runs to be the same, by name; JSON-able."""
        manifest = dictionaries.manifest
        return config_to_dict(self.config) | {
            "tokens": self.total_tokens,
            "context_length": self.context_length,
            "forward_tokens": self.forward_tokens,
            "model": model.fingerprint(),
            "text": source.fingerprint,
            "dictionaries": set_fingerprint(dictionaries),
            "trained_before": manifest.config.get("training") if manifest else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStep:
    """One layer on the tokens of one step, before its update.

    Attributes:
        layer: its number.
        fvu: squared error over the variance measured at the start.
        l0: mean number of active features a token.
    """

    layer: int
    fvu: float
    l0: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFigures:
    """What one step saw, before its update.

    Attributes:
        kl: nats a position; None without the KL term.
        layers: on the original model's activations.
    """

    kl: float | None
    layers: tuple[LayerStep, ...]

    def to_json(self) -> dict[str, Any]:
        """Its plain form."""
        return {"kl": self.kl, "layers": [asdict(layer) for layer in self.layers]}


class FinetuneRun:
    """Trains dictionaries end to end on one text.

    Args:
        plan: what to do.
        model: whose MLPs are replaced; nothing of it is changed.
        dictionaries: what to begin from; left as they are.
        source: the text to train on.

    Attributes:
        steps: how many are done.
        seconds: they took.
        subject: the dictionaries in training.
        rows: the text.
        processes: this one alone.
        parts: all of a checkpoint.

    Raises:
        ConfigError: the model cannot read text as the plan asks.
        DataError: the text has nothing to learn from.
        DictionaryError: an activation whose L0 nothing can hold.
    """

    def __init__(
        self,
        plan: FinetunePlan,
        model: LanguageModel,
        dictionaries: DictionarySet,
        source: TextSource,
    ) -> None:
        self.plan = plan
        self.identity = plan.identity(model, dictionaries, source)
        self.steps, self.seconds = 0, 0.0
        self.subject = Subject(dictionaries, plan.config)
        self._tokens = 0
        self._model = model
        self._replacement = ReplacementModel(model, self.subject.trained)
        self.rows = TokenRows(source, model, length=plan.context_length)
        self._before: Before | None = None
        self.processes, self.parts = ALONE, None

    @property
    def tokens(self) -> int:
        """How many tokens the run has trained on."""
        return self._tokens

    @property
    def tokens_per_second(self) -> float:
        """Over the whole run."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def advance(self) -> StepFigures:
        """Train on the next batch.

        Raises:
            DictionaryError: the loss is not finite; nothing was changed.
        """
        began = time.perf_counter()
        before = self._before or self._begin()
        rows = self._draw(self.plan.config.batch_tokens)
        figures = self._gather(rows, before)
        self.subject.step(self.plan.config.rate(self.steps, self.plan.total_steps))
        self.steps += 1
        self._tokens += sum(len(row.text) for row in rows)
        self.seconds += time.perf_counter() - began
        return figures

    def checkpoint(self) -> RunCheckpoint:
        """All that `restore` needs."""
        assert self._before is not None
        return RunCheckpoint(
            tokens=self.tokens,
            identity=self.identity,
            state={
                "steps": self.steps,
                "seconds": self.seconds,
                "text": self.rows.position.to_json(),
                "before": self._before.to_json(),
                "settings": self.subject.settings(),
            },
            tensors=self.subject.tensors(),
        )

    def restore(self, checkpoint: RunCheckpoint) -> None:
        """Go on from a checkpoint of a run with the same identity."""
        state = checkpoint.state
        self.steps, self.seconds, self._tokens = state["steps"], state["seconds"], checkpoint.tokens
        self.rows.position = TextPosition(**state["text"])
        self._before = Before.from_json(state["before"])
        self.subject.set_units(self._before.mean_squares)
        self.subject.restore(checkpoint.tensors, state["settings"], self.steps)

    def _begin(self) -> Before:
        """Measure what is before on the first text, and go back to its beginning."""
        start = self.rows.position
        parts = self._parts(self._draw(min(_TOKENS_BEFORE, self.plan.total_tokens)))
        self.rows.position = start
        self._before = measure_before(ReplacementModel(self._model, self.subject.start), parts)
        self.subject.set_units(self._before.mean_squares)
        return self._before

    def _draw(self, tokens: int) -> list[Row]:
        """Whole rows that together hold at least so many tokens of text."""
        rows: list[Row] = []
        while sum(len(row.text) for row in rows) < tokens:
            rows.append(next(self.rows))
        return rows

    def _parts(self, rows: list[Row]) -> list[RowBatch]:
        device = self._model.device
        return [
            RowBatch(*(tensor.to(device) for tensor in part))
            for part in padded_batches(rows, max_tokens=self.plan.forward_tokens)
        ]

    def _gather(self, rows: list[Row], before: Before) -> StepFigures:
        """Gather the gradients of a batch part by part, each counted by its share of the whole."""
        trained, parts = self.subject.trained, self._parts(rows)
        tokens = sum(int(part.text.sum()) for part in parts)
        positions = max(1, sum(scored(part.text) for part in parts))
        with_kl = self.plan.config.objective == "kl"
        kl = 0.0
        errors, active = dict.fromkeys(trained.layers, 0.0), dict.fromkeys(trained.layers, 0.0)
        for part in parts:
            original = original_run(self._replacement, part)
            found = terms(self._replacement, part, original, with_kl=with_kl)
            loss = self._loss(found, before, tokens=tokens, positions=positions)
            share = int(part.text.sum()) / tokens
            for layer, keeper in self.subject.keepers.items():
                keeper.watch(original.values[trained[layer].read_site], found.codes[layer])
                loss = loss + share * keeper.penalty(found.codes[layer])
                errors[layer] += float(found.errors[layer].detach())
                active[layer] += float(found.codes[layer].l0().sum())
            if not loss.isfinite():
                self.subject.forget()
                raise DictionaryError(
                    f"the loss of step {self.steps} is {float(loss.detach())}; lower the learning "
                    "rate, or check that the activations are finite"
                )
            loss.backward()
            kl += float(found.kl.detach()) if found.kl is not None else 0.0
        return StepFigures(
            kl=kl / positions if with_kl else None,
            layers=tuple(
                LayerStep(
                    layer=layer,
                    fvu=errors[layer] / tokens / before.variances[layer],
                    l0=active[layer] / tokens,
                )
                for layer in trained.layers
            ),
        )

    def _loss(self, found: Terms, before: Before, *, tokens: int, positions: int) -> Tensor:
        """A part's share of KL / KL before + weight * mean over layers of error / error before."""
        local = torch.stack([error / before.errors[n] for n, error in found.errors.items()])
        loss = self.plan.config.local_weight / tokens * local.mean()
        return loss if found.kl is None else loss + found.kl / (positions * before.kl)
