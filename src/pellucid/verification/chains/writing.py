"""Chains written by the model under test, and their steps' places among its tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.core.errors import DataError
from pellucid.interventions.generate import generate
from pellucid.interventions.spec import Intervention
from pellucid.models.model import LanguageModel
from pellucid.verification.chains.expressions import Language
from pellucid.verification.chains.steps import EQUALS, Chain, read_chain


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenChain:
    """A chain as the model wrote it.

    Attributes:
        ids: the prompt (question and first `=`) and what followed, special first token included.
        prompt_length: tokens of the prompt.
        chain: its steps; their ranges count tokens after the special first one.
        unread: why it could not be read, None if it could.
    """

    ids: tuple[int, ...]
    prompt_length: int
    chain: Chain | None
    unread: str | None


def write_chains(
    model: LanguageModel,
    language: Language,
    questions: Sequence[Sequence[str]],
    *,
    temperature: float = 0.0,
    seed: int = 0,
    max_new_tokens: int | None = None,
    rows: int = 64,
    interventions: Sequence[Intervention] = (),
) -> Iterator[WrittenChain]:
    """Let a model with one token a word write chains, in the order of the questions.

    Args:
        model: the model.
        language: of the questions.
        questions: tokens of each.
        temperature: 0 for greedy.
        seed: of sampling.
        max_new_tokens: the most tokens a chain may take; what the context leaves if None.
        rows: chains written at once.
        interventions: edits under which they are written.

    Raises:
        PromptError: a question that the model cannot be asked.
    """
    for start in range(0, len(questions), rows):
        part = questions[start : start + rows]
        prompts = [model.encode(" ".join((*question, EQUALS))).tolist() for question in part]
        longest = max(len(prompt) for prompt in prompts)
        room = model.context_length - longest
        sampling: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature} if temperature else {}
        )
        written = generate(
            model,
            prompts,
            interventions,
            max_new_tokens=min(room, max_new_tokens or room),
            seed=seed + start,
            **sampling,
        )
        for prompt, new in zip(prompts, written.tokens, strict=True):
            yield read_written(model, language, prompt, new)


def read_written(
    model: LanguageModel, language: Language, prompt: Sequence[int], new: Sequence[int]
) -> WrittenChain:
    """Read what a model with one token a word wrote after a prompt.

    Args:
        model: whose tokens they are.
        language: of the chain.
        prompt: ids of the question and the first `=`.
        new: ids that followed.
    """
    ids = (*prompt, *new)
    words = model.token_texts(list(ids))
    first = 1 if ids[0] in model.special_tokens.structural else 0
    try:
        chain, unread = read_chain(language, [word.strip() for word in words[first:]]), None
    except DataError as error:
        chain, unread = None, str(error)
    return WrittenChain(ids=ids, prompt_length=len(prompt), chain=chain, unread=unread)
