"""Do other tools' own loaders read our exports with equal outputs, and do we read theirs?

Random dictionaries of every kind and activation go both ways. From the repository's root, with
pellucid importable; each peer lives in an environment of its own (`benchmarks/peers`):

    python -m benchmarks.interop --sparsify-python PYTHON --saelens-python PYTHON \
        --circuit-tracer-python PYTHON

Without a peer's Python its cells keep what was measured before.
"""

import argparse
import json
import os
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.interop_cases import (
    FEATURES,
    INPUTS,
    LAYERS,
    TOKENS,
    WIDTH,
    Case,
    K,
    draw,
    inputs,
)
from benchmarks.measure import hardware, versions
from pellucid.core.errors import PellucidError
from pellucid.core.files import write_text
from pellucid.core.types import Site
from pellucid.dictionaries import (
    ACTIVATIONS,
    DICTIONARIES,
    Activation,
    DictionarySet,
    JumpReLU,
    convert,
    load_dictionaries,
)
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from tests.support.tiny_models import tiny_model

RESULTS = Path(__file__).parent / "results" / "interop.json"
BAR = 1e-5
KINDS = ("sae", "transcoder", "skip-transcoder", "clt")
PEERS = {
    "sparsify": ("sparsify",),
    "saelens": ("saelens",),
    "circuit-tracer": ("circuit-tracer", "circuit-tracer-clt", "gemma-scope", "gemma-scope-2"),
    "llamascopium": ("llamascopium",),
    "dictionary-learning": (),
}
HOSTS = {"sparsify": "llama", "gemma-scope": "gemma2", "gemma-scope-2": "gemma3"}

Record = dict[str, Any]


def activation(name: str, layer: int) -> Activation:
    if name == "jumprelu":
        return JumpReLU(draw(FEATURES, seed=layer + 90).abs() + 0.01)
    return ACTIVATIONS[name](**({"k": K} if name.endswith("topk") else {}))


def made(case: Case) -> DictionarySet:
    """Random dictionaries of a kind and activation, one a layer."""
    layers = {}
    for layer in range(LAYERS):
        read, write = Site("mlp_in", layer), Site("mlp_out", layer)
        if case.kind == "sae":
            read = write = Site("resid_post", layer)
        slots = (LAYERS - layer,) if case.kind == "clt" else ()
        skip = draw(WIDTH, WIDTH, seed=layer + 50) if case.kind == "skip-transcoder" else None
        layers[layer] = DICTIONARIES[case.kind.removeprefix("skip-")](
            W_enc=draw(FEATURES, WIDTH, seed=layer + 10),
            b_enc=draw(FEATURES, seed=layer + 20),
            W_dec=draw(FEATURES, *slots, WIDTH, seed=layer + 30),
            b_dec=draw(WIDTH, seed=layer + 40),
            W_skip=skip,
            activation=activation(case.activation, layer),
            read_site=read,
            write_site=write,
        )
    return DictionarySet("random", layers)


def outputs(dictionaries: DictionarySet, x: Tensor) -> Tensor:
    """What the set writes to each layer, given inputs [L, N, d]."""
    written = torch.zeros_like(x)
    for layer, dictionary in dictionaries.dictionaries.items():
        codes = dictionary.encode(x[layer])
        for slot in range(len(dictionary.write_sites)):
            written[layer + slot] += dictionary.decode(codes, slot)
        linear = dictionary.skip(x[layer])
        written[layer] += 0 if linear is None else linear
    return written


def exported(folder: Path, formats: tuple[str, ...], hosts: dict[str, LanguageModel]) -> None:
    """Every kind and activation that a format holds, as it is exported."""
    (folder / "exports").mkdir()
    for name in formats:
        for kind in KINDS:
            for each in ACTIVATIONS:
                case = Case(name, kind, each)
                try:
                    out = folder / "exports" / case.name
                    convert(made(case), out, name, model=hosts.get(name))
                except PellucidError:
                    continue  # the format does not hold it


def read_by_peer(case: Case, theirs: Tensor, x: Tensor, host: LanguageModel | None) -> float:
    """The largest difference between our outputs and a peer's, on the same inputs.

    A format that reads before the gain is given x there, and we what the norm makes of it.
    """
    if case.format == "gemma-scope":
        assert host is not None
        norms = [host.block(layer).mlp_norm for layer in range(LAYERS)]
        x = torch.stack([x[i] * norm.gain for i, norm in enumerate(norms) if norm is not None])
    return float((outputs(made(case), x) - theirs).abs().max())


def run_peer(peer: str, python: str, folder: Path, hosts: dict[str, LanguageModel]) -> list[Record]:
    """Both directions with one peer."""
    x = draw(LAYERS, TOKENS, WIDTH, seed=5) * WIDTH**0.5
    save_file({"x": x}, folder / INPUTS)
    exported(folder, PEERS[peer], hosts)
    module = f"benchmarks.peers.interop_{peer.replace('-', '_')}"
    command = [python, "-W", "ignore", "-m", module, f"--folder={folder}"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{peer} failed:\n{done.stderr}")
    answer = json.loads((folder / "peer.json").read_text())
    version = next(iter(value for name, value in answer["versions"].items() if name != "python"))
    theirs = load_file(folder / "outputs.safetensors")
    records = [
        {"case": name, "direction": "they read ours", "error": error}
        for name, error in answer["errors"].items()
    ]
    for key, value in theirs.items():
        direction, name = key.split(" ")
        case = Case.of(name)
        if direction == "read":
            difference = read_by_peer(case, value, x, hosts.get(case.format))
        else:
            own = load_dictionaries(folder / "made" / name, model=hosts.get(case.format))
            difference = float((outputs(own, inputs(folder)) - value).abs().max())
        records.append(
            {
                "case": name,
                "direction": "they read ours" if direction == "read" else "we read theirs",
                "max_abs_diff": difference,
                "largest_output": float(value.abs().max()),
            }
        )
    for record in records:
        record |= {"peer": peer, "version": version, "passes": passes(record)}
        print(line(record), flush=True)
    return records


def passes(record: Record) -> bool:
    """Within the bar."""
    return record.get("max_abs_diff", float("inf")) <= BAR


def line(record: Record) -> str:
    """One cell on the terminal."""
    cell = f"{record['max_abs_diff']:.1e}" if "max_abs_diff" in record else record["error"]
    return (
        f"{record['case']:40} {record['direction']:15} {record['peer']} {record['version']}  {cell}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for peer in PEERS:
        parser.add_argument(f"--{peer}-python", metavar="PYTHON", help=f"Python of {peer}")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = vars(parser.parse_args())
    torch.set_num_threads(1)
    hosts = {name: load_model(tiny_model(family)) for name, family in HOSTS.items()}
    out = options.pop("out")
    kept = json.loads(out.read_text())["cells"] if out.exists() else []
    for peer in PEERS:
        python = options[f"{peer.replace('-', '_')}_python"]
        if python is None:
            continue
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            kept = [cell for cell in kept if cell["peer"] != peer]
            kept += run_peer(peer, python, Path(folder), hosts)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": versions(["pellucid", "torch", "safetensors"]),
        "bar": BAR,
        "cells": sorted(kept, key=lambda cell: (cell["case"], cell["direction"])),
    }
    write_text(out, json.dumps(result, indent=2) + "\n")
    if not all(cell["passes"] for cell in kept):
        raise SystemExit("not all cells pass")


if __name__ == "__main__":
    main()
