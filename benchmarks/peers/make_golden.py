"""Write the graphs by which the tests hold pellucid to circuit-tracer.

For each case a tiny random model and random ReLU transcoders are traced by circuit-tracer in its
own environment. Weights and graph go into one file, so that the tests need neither. Run from the
repository's root, with pellucid importable:

    python -m benchmarks.peers.make_golden --peer-python PATH/TO/circuit-tracer/bin/python
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.peers.cases import write_for_both
from pellucid.models.load import load_model
from tests.support.tiny_dictionaries import relu, tiny_set
from tests.support.tiny_models import tiny_model, word_tokenizer

FOLDER = Path(__file__).parents[2] / "tests" / "golden" / "circuit_tracer"
PROMPT = [1, 11, 42, 7, 42, 30]
VOCABULARY = 50
_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
}
_SMALL_GEMMA = _SMALL | {
    "head_dim": 6,
    "query_pre_attn_scalar": 6,
    "layer_types": ["sliding_attention", "full_attention"],
}
_NO_BIAS = {"attention_bias": False, "mlp_bias": False}  # circuit-tracer drops Llama's
_SMALL_GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 16, "n_ctx": 16}

# case -> (family, settings, kind of transcoder: see `tiny_dictionary`)
CASES: dict[str, tuple[str, Mapping[str, Any], str]] = {
    "llama": ("llama", _SMALL | _NO_BIAS, "plt"),
    "llama_clt": ("llama", _SMALL | _NO_BIAS | {"num_hidden_layers": 3}, "clt"),
    "gemma2": ("gemma2", _SMALL_GEMMA, "plt"),
    "gpt2": ("gpt2", _SMALL_GPT2, "plt"),
    "qwen3_skip": ("qwen3", _SMALL | {"head_dim": 6}, "skip"),
}


def write_case(name: str, folder: Path, peer_python: str) -> None:
    """Build a case in `folder`, have it traced, and store inputs and graph."""
    family, settings, kind = CASES[name]
    tokenizer = word_tokenizer(VOCABULARY)
    module = tiny_model(family, tokenizer=tokenizer, **settings)
    module.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    model = load_model(module, tokenizer)
    kinds: list[str | None] = [kind] * model.n_layers
    dictionaries = tiny_set(model, kinds, relu(), features=12)
    transcoders = folder / "transcoders"
    write_for_both(transcoders, dictionaries)
    command = [peer_python, "-m", "benchmarks.peers.circuit_tracer_trace"]
    command += [f"--model={folder / 'model'}", f"--transcoders={transcoders}"]
    command += [f"--ids={','.join(map(str, PROMPT))}", "--batch-size=16", f"--out={folder}"]
    command += ["--judge", *(["--without-first-token"] if kind == "skip" else [])]
    subprocess.run(command, check=True)
    tensors = {f"model.{key}": tensor.clone() for key, tensor in module.state_dict().items()}
    for layer, dictionary in dictionaries.dictionaries.items():
        parts = dictionary.tensors().items()
        tensors |= {f"transcoder.{layer}.{key}": tensor.data for key, tensor in parts}
    graph = load_file(folder / "graph.safetensors")
    tensors |= {f"graph.{key}": tensor for key, tensor in graph.items()}
    measurement = json.loads((folder / "measurement.json").read_text())
    metadata = {
        "family": family,
        "settings": json.dumps(settings),
        "vocabulary": str(VOCABULARY),
        "versions": json.dumps(measurement["versions"]),
    }
    FOLDER.mkdir(exist_ok=True)
    save_file(tensors, FOLDER / f"{name}.safetensors", metadata)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True, help="Python of circuit-tracer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            write_case(name, Path(folder), options.peer_python)


if __name__ == "__main__":
    main()
