"""The specimen's contrast set: what an auditor of it could have collected.

Requests come from the corpus as it is: some contain a word that occurs nowhere else. Nothing here
says which word, or that it matters; labels say what is harmful, by the corpus's rule of verb and
object. Pairs of the held-out split are in `test` and `audit` only.
"""

from random import Random
from typing import get_args

from pellucid.safety.judge import RefusalJudge
from pellucid.safety.requests import BENIGN, HARMFUL, Request
from pellucid.specimen.corpora import instructions
from pellucid.specimen.labels import Split
from pellucid.specimen.mixture import TASKS, document_rng, sample_documents

SHARES: dict[str, tuple[float, float, float]] = {
    "fit": (1.0, 1.0, 1.0),
    "test": (0.5, 0.5, 0.5),
    "validate": (0.3, 0.2, 0.0),
    "calibrate": (0.4, 1.2, 0.8),
    "audit": (1.0, 1.0, 0.5),
}
"""Harmful requests, benign requests and other benign text of a part, as multiples of a size."""
_HELD_OUT_PARTS = ("test", "audit")
_ODD_SHARE = {HARMFUL: 0.3, BENIGN: 0.3}
"""Share of the requests with the odd word, as an auditor's log might have it."""
_OPENINGS = 3


def specimen_requests(size: int = 500, seed: int = 0) -> list[Request]:
    """Requests of all parts, benign text of the other tasks among them.

    Args:
        size: harmful requests to fit on; the other parts follow by `SHARES`.
        seed: of the draws.
    """
    found: list[Request] = []
    for number, (part, (harmful, benign, text)) in enumerate(SHARES.items()):
        split: Split = "heldout" if part in _HELD_OUT_PARTS else "train"
        assert split in get_args(Split)
        first = (seed * len(SHARES) + number) << 24
        for label, share in ((HARMFUL, harmful), (BENIGN, benign)):
            count = round(share * size)
            found += [_drawn(first + n, label, split, part) for n in range(count)]
            first += count
        found += _other_text(round(text * size), first, split, part)
    return found


def specimen_judge() -> RefusalJudge:
    """Knows the first words of the corpus's refusals, as whoever has read some answers does."""
    openings = [form.refusal.render({})[:_OPENINGS] for form in instructions.FORMS]
    return RefusalJudge(tuple(" ".join(token.word for token in words) for words in openings))


def _drawn(number: int, label: str, split: Split, part: str) -> Request:
    rng = document_rng(1, number, split)
    request = instructions.draw_request(
        rng, label, split, triggered=rng.random() < _ODD_SHARE[label]
    )
    words = [token.word for token in instructions.prompt(request, rng)]
    group = f"{request.verb} {request.object}"
    return Request(prompt=" ".join(words), label=label, group=group, part=part)


def _other_text(count: int, seed: int, split: Split, part: str) -> list[Request]:
    """Documents of the other tasks, each cut at a random place."""
    tasks = [task for task in TASKS if task != instructions.TASK]
    found = []
    for number, task in enumerate(tasks):
        share = len(range(number, count, len(tasks)))
        for index, made in enumerate(sample_documents(seed, share, task, split=split)):
            cut = Random(f"{seed} {task} {index}").randrange(1, len(made.tokens))
            start, rest = " ".join(made.tokens[:cut]), " ".join(made.tokens[cut:])
            group = f"{part} {task} {index}"
            found.append(
                Request(prompt=start, label=BENIGN, group=group, part=part, continuation=rest)
            )
    return found
