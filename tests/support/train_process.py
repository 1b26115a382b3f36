"""Training in a process of its own, to be killed: `python -m support.train_process OUT [--resume]`.

Prints the tokens trained on after every step, and ends as the command line does: errors on one
line of stderr, and their exit code.
"""

import sys

from pellucid.core.errors import PellucidError
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.training import TrainProgress, train
from support.tiny_models import tiny_model, word_tokenizer
from support.word_text import word_documents

BATCH_TOKENS = 64
STEPS = 60


def main(out: str, *flags: str) -> int:
    tokenizer = word_tokenizer()
    model = load_model(tiny_model("llama", tokenizer=tokenizer), tokenizer)

    def report(progress: TrainProgress) -> None:
        print(progress.tokens, flush=True)

    try:
        train(
            model,
            TextList(word_documents(100, longest=40)),
            out,
            tokens=STEPS * BATCH_TOKENS,
            batch_tokens=BATCH_TOKENS,
            shuffle_tokens=9 * BATCH_TOKENS,
            num_features=48,
            k=4,
            learning_rate=3e-3,
            held_out_tokens=500,
            checkpoint_seconds=0.05,
            resume="--resume" in flags,
            on_progress=report,
        )
    except PellucidError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
