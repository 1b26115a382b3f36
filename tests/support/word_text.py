"""Documents in the vocabulary of `tiny_models.word_tokenizer`."""

from random import Random

from support.tiny_models import SPECIAL_TOKENS, VOCAB_SIZE

FIRST_WORD = len(SPECIAL_TOKENS) + 1


def word_documents(count: int, *, longest: int = 60, seed: int = 0) -> list[str]:
    """`count` documents of 0 to `longest` words, drawn from a generator of that seed."""
    rng = Random(seed)
    return [
        " ".join(
            f"w{rng.randrange(FIRST_WORD, VOCAB_SIZE)}" for _ in range(rng.randint(0, longest))
        )
        for _ in range(count)
    ]
