"""Fine-tuning in a process of its own, to be killed: `python -m support.finetune_process OUT`.

Prints the tokens trained on after every step, and ends as the command line does: errors on one
line of stderr, and their exit code.
"""

import sys

from pellucid.core.errors import PellucidError
from pellucid.training.finetune import FinetuneProgress, finetune
from support.finetuning import BATCH_TOKENS, TEXT, tiny_subject, trained_transcoders

STEPS = 12


def main(out: str, *flags: str) -> int:
    def report(progress: FinetuneProgress) -> None:
        print(progress.tokens, flush=True)

    try:
        finetune(
            tiny_subject(),
            trained_transcoders(steps=5),
            TEXT,
            out,
            tokens=STEPS * BATCH_TOKENS,
            batch_tokens=BATCH_TOKENS,
            held_out_tokens=200,
            checkpoint_seconds=0.02,
            resume="--resume" in flags,
            on_progress=report,
        )
    except PellucidError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
