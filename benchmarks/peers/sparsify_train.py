"""A whole training of EleutherAI sparsify: its trainer with its defaults. Runs in its environment.

Transcoders of every layer of a Llama, on rows of tokens that the caller cut from the text. Mode
"autocast" loads the model in bfloat16, as its command line does on CUDA, and runs the coders under
bfloat16 autocast, as their own decorator does there: its fastest mode on a CPU.
"""

import argparse
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import torch
from datasets import Dataset
from sparsify import SparseCoder, SparseCoderConfig, Trainer
from sparsify.config import TrainConfig
from transformers import AutoModelForCausalLM

from benchmarks.measure import measure, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="[rows, length] token ids, .npy")
    parser.add_argument("--count", type=int, required=True, help="most rows to train on")
    parser.add_argument("--exclude", type=json.loads, required=True, help="tokens left out")
    parser.add_argument("--features", type=int, required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--mode", choices=("default", "autocast"), default="default")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = numpy.load(options.rows, mmap_mode="r")[: options.count]
    tokens = int((~numpy.isin(rows, options.exclude)).sum())
    data = Dataset.from_dict({"input_ids": rows.astype(numpy.int64)}).with_format("torch")
    fast = options.mode == "autocast"
    dtype = torch.bfloat16 if fast else torch.float32
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    if fast:
        SparseCoder.forward = torch.autocast("cpu", torch.bfloat16)(SparseCoder.forward)
    config = TrainConfig(
        SparseCoderConfig(num_latents=options.features, k=options.k, transcode=True),
        hookpoints=["layers.*.mlp"],
        exclude_tokens=options.exclude,
        log_to_wandb=False,
        save_dir=str(options.out),
        run_name="run",
    )
    trainer = Trainer(config, data, model)
    _, cost = measure(trainer.fit)
    found = {"tokens": tokens, "mode": options.mode, "cpu_s": cost.cpu_s, "wall_s": cost.wall_s}
    found |= {"peak_mb": cost.peak_mb, "versions": versions(["eai-sparsify", "torch"])}
    (options.out / "measurement.json").write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
