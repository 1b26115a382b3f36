"""What is exchanged with other tools: random dictionaries, small enough to be sure of every number.

Standard library, torch and safetensors only: peers import it in their own environments.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.measure import versions

LAYERS, WIDTH, FEATURES, K, TOKENS = 3, 32, 128, 9, 256
INPUTS = "inputs.safetensors"


@dataclass(frozen=True, slots=True)
class Case:
    """One combination: the folder's name says the format, the kind and the activation."""

    format: str
    kind: str
    activation: str

    @property
    def name(self) -> str:
        return f"{self.format}--{self.kind}--{self.activation}"

    @classmethod
    def of(cls, name: str) -> "Case":
        return cls(*name.split("--"))


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers of about unit size over the width."""
    generator = torch.Generator().manual_seed(seed * 7919 + sum(shape))
    return torch.randn(*shape, generator=generator) / WIDTH**0.5


def inputs(folder: Path) -> Tensor:
    """Inputs of every layer, [L, N, d]."""
    return load_file(folder / INPUTS)["x"]


Reader = Callable[[Path, Case, Tensor], Tensor]
Writer = Callable[[Path, Case, Tensor], Tensor]


def serve(read: Reader, made: dict[Case, Writer], packages: list[str]) -> None:
    """Load all that was exported for this peer, make its own, and leave both sides' outputs.

    Args:
        read: given an exported folder, its case and inputs [L, N, d], the outputs [L, N, d] of
            what the peer's own loader gives.
        made: what to make: given a new folder, the case and inputs, saves with the peer's own
            writer and returns the outputs.
        packages: whose versions to report.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    x = inputs(folder)
    outputs, errors = {}, {}
    with torch.no_grad():
        for home in sorted((folder / "exports").iterdir()):
            try:
                outputs[f"read {home.name}"] = read(home, Case.of(home.name), x).contiguous()
            except Exception as error:  # reported in the table: a peer that cannot read is a result
                errors[home.name] = f"{type(error).__name__}: {error}".splitlines()[0]
        for case, write in made.items():
            home = folder / "made" / case.name
            home.mkdir(parents=True)
            outputs[f"made {case.name}"] = write(home, case, x).contiguous()
    save_file(outputs, folder / "outputs.safetensors")
    record = {"versions": versions(packages), "errors": errors}
    (folder / "peer.json").write_text(json.dumps(record))
