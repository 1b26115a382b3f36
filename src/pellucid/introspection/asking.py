"""Putting questions to a model while vectors are added to its residual stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.interventions.generate import generate
from pellucid.interventions.operations import Add
from pellucid.interventions.run import run
from pellucid.interventions.spec import Intervention
from pellucid.interventions.where import window
from pellucid.introspection.concepts import site_after
from pellucid.introspection.dialogue import Prompt
from pellucid.introspection.injection import Asked
from pellucid.models.model import LanguageModel

_LOGITS_AT_ONCE = 64_000_000


@final
@dataclass(slots=True, kw_only=True, eq=False)
class Asker:
    """Asks one model, injecting after one layer.

    Rows of equal number in two calls are drawn with equal seeds, so that arms are paired.

    Attributes:
        model: what is asked.
        layer: after which vectors are added.
        temperature: of the answers' tokens; 0 takes the likeliest.
        seed: of the answers' tokens.
        edited: tokens edited so far, over all rows and phases.
        relative_norms: of every injection so far, the mean of |added| / |residual|.
    """

    model: LanguageModel
    layer: int
    temperature: float = 1.0
    seed: int = 0
    edited: int = 0
    relative_norms: list[float]

    def answers(self, rows: Sequence[Asked], tokens: int) -> list[str]:
        """What the model says to each row.

        Args:
            rows: questions with their injections.
            tokens: the most tokens of an answer.

        Raises:
            InterventionError: an injection did not happen.
        """
        sampling: dict[str, Any] = (
            {"do_sample": True, "temperature": self.temperature, "top_k": 0}
            if self.temperature > 0
            else {"do_sample": False}
        )
        said: list[str] = []
        for first, group in self._groups(rows, tokens):
            made = generate(
                self.model,
                [row.prompt.ids for row in group],
                self._edits(group),
                max_new_tokens=tokens,
                seed=self.seed + first,
                **sampling,
            )
            self._count(group, made.receipt)
            said += [self._text(ids) for ids in made.tokens]
        return said

    @torch.no_grad()
    def scores(
        self, rows: Sequence[Asked], options: Sequence[Sequence[int]]
    ) -> Float[Tensor, "N O"]:
        """Log of the summed exponentials of each option's tokens' logits, at the next token.

        Args:
            rows: questions with their injections.
            options: for each option, the tokens it can begin with.

        Raises:
            InterventionError: an injection did not happen.
        """
        return torch.stack([self._option(logits, options) for logits in self.next_logits(rows)])

    def next_logits(self, rows: Sequence[Asked]) -> list[Float[Tensor, " V"]]:
        """The logits of the token after each prompt.

        Args:
            rows: questions with their injections.

        Raises:
            InterventionError: an injection did not happen.
        """
        found: list[Tensor] = []
        with torch.no_grad():
            for _, group in self._groups(rows, max(len(row.prompt.ids) for row in rows)):
                done = run(self.model, [row.prompt.ids for row in group], self._edits(group))
                self._count(group, done.receipt)
                ends = _last_columns(done.batch.mask)
                found += list(done.logits[torch.arange(len(group)), ends].float().cpu())
        return found

    @staticmethod
    def _option(
        logits: Float[Tensor, " V"], options: Sequence[Sequence[int]]
    ) -> Float[Tensor, " O"]:
        return torch.stack([logits[list(option)].logsumexp(dim=0) for option in options])

    def _groups(self, rows: Sequence[Asked], tokens: int) -> list[tuple[int, Sequence[Asked]]]:
        size = max(1, min(256, _LOGITS_AT_ONCE // (self.model.vocab_size * tokens)))
        return [(first, rows[first : first + size]) for first in range(0, len(rows), size)]

    def _edits(self, rows: Sequence[Asked]) -> list[Intervention]:
        return [
            Intervention(
                site=site_after(self.layer),
                op=Add(injection.vector),
                where=window(injection.start, injection.stop),
                rows=(number,),
            )
            for number, row in enumerate(rows)
            for injection in row.injections
        ]

    def _count(self, rows: Sequence[Asked], receipt: Any) -> None:
        expected = sum(len(row.injections) for row in rows)
        if len(receipt.sites) != expected:
            raise InterventionError(
                f"{expected} injections were asked for and {len(receipt.sites)} happened; this is "
                "a defect of pellucid, please report it"
            )
        if expected:
            self.edited += sum(sum(site.tokens_edited.values()) for site in receipt.sites)
            self.relative_norms.append(float(receipt.mean_relative_norm))

    def _text(self, ids: Sequence[int]) -> str:
        tokenizer: Any = self.model.tokenizer
        end = self.model.special_tokens.eos
        kept = list(ids)
        kept = kept[: kept.index(end)] if end in kept else kept
        return str(tokenizer.decode(kept, skip_special_tokens=True)).strip()


def asked(prompt: Prompt, *injections: Any) -> Asked:
    """A row.

    Args:
        prompt: what is asked.
        *injections: what is added meanwhile.
    """
    return Asked(prompt=prompt, injections=tuple(injections))


def _last_columns(mask: Tensor) -> Tensor:
    """The column of each row's last real token."""
    columns = torch.arange(mask.shape[1], device=mask.device)
    return (mask.long() * columns).argmax(dim=1)
