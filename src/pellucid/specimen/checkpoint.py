"""Saving and loading the state of a training run: safetensors and JSON, whole or not at all."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from pellucid.core.files import atomic_directory, recover_directory
from pellucid.core.manifest import Manifest, read_manifest

KIND = "specimen-checkpoint"
MODEL_FILE, OPTIMISER_FILE = "model.safetensors", "optimizer.safetensors"


def _optimiser_tensors(
    model: LlamaForCausalLM, optimiser: torch.optim.AdamW
) -> dict[str, torch.Tensor]:
    return {
        f"{key}:{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimiser.state[parameter].items()
    }


def save(
    folder: Path,
    model: LlamaForCausalLM,
    optimiser: torch.optim.AdamW,
    *,
    config: dict[str, object],
    state: dict[str, int],
) -> None:
    """Replace the checkpoint at `folder`; a crash at any moment leaves a complete one.

    Raises:
        StorageError: the folder cannot be written.
    """
    with atomic_directory(folder) as temporary:
        save_file(dict(model.named_parameters()), temporary / MODEL_FILE)
        save_file(_optimiser_tensors(model, optimiser), temporary / OPTIMISER_FILE)
        manifest = Manifest(kind=KIND, config=config, results=dict(state))
        manifest.write(temporary, [MODEL_FILE, OPTIMISER_FILE])


def load(
    folder: Path, model: LlamaForCausalLM, optimiser: torch.optim.AdamW
) -> tuple[dict[str, object], dict[str, int]]:
    """Fill model and optimiser from `folder`; returns the run's configuration and state.

    Raises:
        CheckpointError: no checkpoint there, or a damaged one.
    """
    recover_directory(folder)
    manifest = read_manifest(folder, kind=KIND)
    model.load_state_dict(load_file(folder / MODEL_FILE))
    parameters = dict(model.named_parameters())
    for stored_name, value in load_file(folder / OPTIMISER_FILE).items():
        key, name = stored_name.split(":", 1)
        optimiser.state[parameters[name]][key] = value
    return manifest.config, manifest.results
