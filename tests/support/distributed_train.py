"""Run by torchrun or alone: a training of a tiny model; arguments are its settings as JSON."""

import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch

from pellucid.distributed.processes import joined
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.training import TrainProgress, train
from support.tiny_models import tiny_model, word_tokenizer
from support.word_text import word_documents

SETTINGS = {
    "tokens": 32_000,
    "shuffle_tokens": 2_000,
    "batch_tokens": 128,
    "num_features": 64,
    "k": 4,
    "precision": "float32",
    "learning_rate": 3e-3,
    "held_out_tokens": 300,
}


def text() -> TextList:
    """What it trains on."""
    return TextList(word_documents(3_000, longest=40))


def model() -> LanguageModel:
    """Whose activations."""
    tokenizer = word_tokenizer()
    return load_model(tiny_model("llama", tokenizer=tokenizer), tokenizer)


def main() -> None:
    """Train; once `kill_after` tokens are done, the process that reports is killed; once
    `full_after` are, no file can grow past 20,000 bytes."""
    torch.set_num_threads(1)
    options = json.loads(sys.argv[1])
    out, layout = Path(options.pop("out")), options.pop("layout", "")
    kill_after, full_after = options.pop("kill_after", None), options.pop("full_after", None)
    with joined(layout, "cpu") as processes:

        def progress(now: TrainProgress) -> None:
            if kill_after is not None and now.tokens >= kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            if full_after is not None and now.tokens >= full_after:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

        result = train(
            model(),
            text(),
            out,
            processes=processes,
            on_progress=progress,
            checkpoint_seconds=0.0 if kill_after or full_after else 300.0,
            **(SETTINGS | options),
        )
        if processes.first:
            print(json.dumps(result.to_json()), flush=True)


if __name__ == "__main__":
    main()
