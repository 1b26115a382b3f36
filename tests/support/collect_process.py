"""Collecting in a process of its own, to be killed: `python -m support.collect_process OUT [R W]`.

Reads chains of the specimen in small parts, and prints how many chains are done after every part.
R and W: rank and number of processes.
"""

import sys

import torch

from pellucid import api
from pellucid.attribution.many import Share
from pellucid.verification.collecting import collect as collecting
from pellucid.verification.collecting.collect import Questions, Sampling, collect
from pellucid.verification.reading.reader import Reader, ReaderSettings

PART, CHAINS = 2, 8
QUESTIONS = Questions(operators=(2, 3), count=CHAINS, temperature=1.0, seed=3)


def small_reader(max_features: int = 8) -> Reader:
    """Of the specimen, one small graph a step."""
    settings = ReaderSettings(targets=("answer",), max_features=max_features, tokens=False)
    return Reader(api.load_model("specimen"), api.load_dictionaries("specimen"), settings)


def main(out: str, rank: str = "0", world: str = "1") -> None:
    torch.set_num_threads(1)
    collecting.PART = PART
    collect(
        small_reader(),
        QUESTIONS,
        out,
        sampling=Sampling(right_share=0.6),
        share=Share(int(rank), int(world)),
        on_progress=lambda done, total: print(done, flush=True),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
