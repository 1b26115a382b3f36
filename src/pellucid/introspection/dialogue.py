"""From a wording to token ids, with the token positions of the parts that matter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch

from pellucid.core.errors import ConfigError, PromptError
from pellucid.introspection.wording import Turn, Wording
from pellucid.models.model import LanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt as ids.

    Attributes:
        ids: the special first token included.
        spans: named parts as half-open token positions.
        text: as it was written.
    """

    ids: tuple[int, ...]
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    text: str


class Dialogue:
    """Writes a wording's prompts for one model.

    Args:
        model: with a tokenizer.
        wording: what is said.

    Raises:
        PromptError: the model has no tokenizer.
        ConfigError: yes and no begin with the same token.
    """

    def __init__(self, model: LanguageModel, wording: Wording) -> None:
        if model.tokenizer is None:
            raise PromptError(
                f"{model.name} was loaded without a tokenizer; introspection asks questions in "
                "words, so load it with one"
            )
        self.model, self.wording = model, wording
        self.yes = self._first_tokens(wording.yes[:1])
        self.no = self._first_tokens(wording.no[:1])
        shared = set(self.yes) & set(self.no)
        if shared:
            raise ConfigError(
                f"yes {wording.yes[0]!r} and no {wording.no[0]!r} both begin with the token "
                f"{model.token_texts([min(shared)])[0]!r}; choose answers that differ at once"
            )

    def write(
        self,
        turns: Sequence[Turn],
        parts: Sequence[tuple[str, str]] = (),
        *,
        prefill: str = "",
    ) -> Prompt:
        """A conversation up to where the model goes on.

        Args:
            turns: (role, text).
            parts: (name, text) of parts to be found again, in their order in the conversation.
            prefill: how its answer begins.

        Raises:
            PromptError: too long, or a word that the model does not know.
        """
        text = self._rendered(turns, prefill)
        ids = self.model.encode(text).tolist()
        if prefill:
            parts = [*parts, ("prefill", prefill)]
        spans: dict[str, tuple[int, int]] = {}
        reached = 0
        for name, part in parts:
            begin = text.find(part, reached)
            if begin < 0:
                raise PromptError(
                    f"the chat template of {self.model.name} does not keep the text {part!r}; give "
                    "a wording with chat_template false"
                )
            reached = begin + len(part)
            spans[name] = (self._tokens(text[:begin], ids), self._tokens(text[:reached], ids))
        return Prompt(ids=tuple(ids), spans=spans, text=text)

    def trial(self, question: str) -> Prompt:
        """The setting and one question; spans `setting` and `trial`."""
        turns = [*self.wording.setting, ("user", question)]
        return self.write(turns, [("setting", turns[0][1]), ("trial", question)])

    def factual(self, question: str) -> Prompt:
        """A factual-No question; span `trial`."""
        if not self.wording.factual_alone:
            return self.trial(question)
        ids = self.model.encode(question).tolist()
        return Prompt(ids=tuple(ids), spans={"trial": (1, len(ids))}, text=question)

    def concept(self, word: str) -> Prompt:
        """The prompt at whose last token a concept's vector is read."""
        text = self.wording.concept_prompt.format(word=word)
        if self.wording.concept_is_turn:
            return self.write([("user", text)])
        return Prompt(ids=tuple(self.model.encode(text).tolist()), text=text)

    def options(self, labels: Sequence[str]) -> list[list[int]]:
        """For each label, the tokens that an answer beginning with it can begin with."""
        return [self._first_tokens([label]) for label in labels]

    def _rendered(self, turns: Sequence[Turn], prefill: str) -> str:
        tokenizer: Any = self.model.tokenizer
        if self.wording.chat_template and getattr(tokenizer, "chat_template", None):
            messages = [{"role": role, "content": text} for role, text in turns]
            whole = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            return str(whole) + prefill
        chat = self.wording.chat
        said = [chat[role].format(text=text) for role, text in turns]
        said.append(chat["assistant"].format(text=prefill).rstrip())
        return chat["joint"].join(said)

    def _tokens(self, beginning: str, ids: Sequence[int]) -> int:
        """How many of a text's tokens lie wholly within its beginning."""
        own = self.model.tokenize(beginning) if beginning else []
        pairs = zip(own, ids, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _first_tokens(self, words: Sequence[str]) -> list[int]:
        found: dict[int, None] = {}
        tokenizer: Any = self.model.tokenizer
        for word in words:
            for form in {word: None, f" {word}": None, word.capitalize(): None}:
                for text in (form, f" {form.strip()}"):
                    own = tokenizer(text, add_special_tokens=False)["input_ids"]
                    if own and own[0] != tokenizer.unk_token_id:
                        found[own[0]] = None
        if not found:
            raise PromptError(
                f"the model does not know any of the words {', '.join(map(repr, words))}; give a "
                "wording in its vocabulary"
            )
        return list(found)


def padded(
    prompts: Sequence[Prompt], filler: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prompts padded on the right: ids `[B, S]`, mask `[B, S]` and lengths `[B]`.

    Args:
        prompts: of any lengths.
        filler: the id at padding, which nothing reads.
    """
    lengths = torch.tensor([len(prompt.ids) for prompt in prompts])
    ids = torch.full((len(prompts), int(lengths.max())), filler)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
    return ids, torch.arange(ids.shape[1])[None] < lengths[:, None], lengths
