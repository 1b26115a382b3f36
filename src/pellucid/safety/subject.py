"""The model under examination, and what it does when it is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from pellucid.core.errors import PromptError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.generate import generate
from pellucid.interventions.receipts import Receipt
from pellucid.interventions.spec import Intervention
from pellucid.models.model import LanguageModel
from pellucid.safety.judge import RefusalJudge
from pellucid.safety.requests import Request

BATCH = 128
Progress = Callable[[str, float], None]


def silent(_stage: str, _share: float) -> None:
    """Tells nobody."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model, its dictionaries, and the judge of its answers.

    Attributes:
        model: the model.
        judge: of its answers.
        dictionaries: of its features; None to go without.
        max_new_tokens: of an answer.
        batch: prompts a forward.
    """

    model: LanguageModel
    judge: RefusalJudge
    dictionaries: DictionarySet | None = None
    max_new_tokens: int = 12
    batch: int = BATCH

    def ids(self, requests: Sequence[Request]) -> list[list[int]]:
        """The token ids of each prompt.

        Raises:
            PromptError: a prompt that the model cannot be asked.
        """
        return [self.model.encode(request.prompt).tolist() for request in requests]

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        interventions: Sequence[Intervention] = (),
        *,
        progress: Progress = silent,
    ) -> tuple[list[str], list[Receipt]]:
        """What the model says to each prompt, greedily, and a receipt a batch.

        Args:
            prompts: token ids.
            interventions: edits, the same for every row (they may be gated).
            progress: told how far it is.

        Raises:
            InterventionError: an edit that did not happen.
            PromptError: the model has no tokenizer.
        """
        if self.model.tokenizer is None:
            raise PromptError("answers cannot be judged without a tokenizer; load one")
        order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
        texts, receipts = [""] * len(prompts), []
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            made = generate(
                self.model,
                [list(prompts[row]) for row in rows],
                interventions,
                max_new_tokens=self.max_new_tokens,
                dictionaries=self.dictionaries,
            )
            receipts.append(made.receipt)
            for row, text in zip(rows, made.texts, strict=True):
                texts[row] = text
            progress("answers", (start + len(rows)) / len(order))
        return texts, receipts

    def observe(self, requests: Sequence[Request], progress: Progress = silent) -> list[Request]:
        """The requests with what the model did; a behaviour that was given is kept.

        Args:
            requests: to be asked.
            progress: told how far it is.

        Raises:
            PromptError: a prompt that the model cannot be asked.
        """
        asked = [n for n, each in enumerate(requests) if not each.answer and not each.continuation]
        found = list(requests)
        if not asked:
            return found
        answers, _ = self.answers(self.ids([requests[n] for n in asked]), progress=progress)
        for number, answer in zip(asked, answers, strict=True):
            behaviour = requests[number].behaviour or self.judge(answer)
            found[number] = requests[number].observed(answer, behaviour)
        return found
