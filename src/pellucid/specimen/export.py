"""Writing a trained specimen as a standard model folder: half-size weights, full manifest."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from pellucid.core.files import atomic_directory
from pellucid.core.manifest import Manifest
from pellucid.specimen import architecture, tasks, vocabulary

KIND = "specimen-model"
WEIGHTS_FILE = "model.safetensors"
EVALUATION_SEED, EVALUATION_COUNT = 1, 400


def hardware() -> dict[str, Any]:
    """What a figure was measured on."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _write_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Weights in float16; the configuration says float32, so that loading upcasts them."""
    halves = {name: p.detach().half().contiguous() for name, p in model.named_parameters()}
    save_file(halves, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    vocabulary.build_tokenizer(architecture.CONTEXT).save_pretrained(folder)


def export_model(
    model: LlamaForCausalLM,
    folder: Path,
    *,
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    count: int = EVALUATION_COUNT,
) -> dict[str, float]:
    """Write the model, its tokenizer and its manifest; returns its task figures.

    The figures are those of the folder as plain `transformers` loads it, after rounding.

    Args:
        model: the trained model; it is not changed.
        folder: where to write; an older export there is replaced whole.
        config: the recipe.
        results: figures of the training, kept in the manifest beside the tasks'.
        count: evaluation items a task.

    Raises:
        StorageError: the folder cannot be written.
    """
    with atomic_directory(folder) as temporary:
        _write_model(model, temporary)
        loaded = AutoModelForCausalLM.from_pretrained(temporary).eval()
        figures = tasks.task_accuracy(
            lambda ids, mask: loaded(input_ids=ids, attention_mask=mask.long()).logits,
            seed=EVALUATION_SEED,
            count=count,
        )
        manifest = Manifest(
            kind=KIND,
            config=dict(config),
            seed=config["seed"],
            results={
                **results,
                "tasks": figures,
                "evaluation": {"seed": EVALUATION_SEED, "count": count},
                "hardware": hardware(),
            },
        )
        manifest.write(temporary, sorted(path.name for path in temporary.iterdir()))
    return figures
