"""SAELens reads our exports and writes its own. Runs in its environment."""

from pathlib import Path
from typing import Any

import torch
from sae_lens.registry import get_sae_class
from sae_lens.saes.sae import SAE
from torch import Tensor

from benchmarks.interop_cases import FEATURES, LAYERS, WIDTH, Case, K, draw, serve

ARCHITECTURES = {
    ("sae", "relu"): "standard",
    ("sae", "topk"): "topk",
    ("sae", "jumprelu"): "jumprelu",
    ("sae", "gated"): "gated",
    ("transcoder", "relu"): "transcoder",
    ("transcoder", "jumprelu"): "jumprelu_transcoder",
    ("skip-transcoder", "relu"): "skip_transcoder",
    ("skip-transcoder", "jumprelu"): "jumprelu_skip_transcoder",
}


def output(saes: list[Any], x: Tensor) -> Tensor:
    return torch.stack([sae(x[layer]) for layer, sae in enumerate(saes)])


def read(home: Path, case: Case, x: Tensor) -> Tensor:
    return output([SAE.load_from_disk(folder) for folder in sorted(home.glob("blocks*"))], x)


def make(home: Path, case: Case, x: Tensor) -> Tensor:
    saes = []
    sae_class, config_class = get_sae_class(ARCHITECTURES[case.kind, case.activation])
    for layer in range(LAYERS):
        hook = f"blocks.{layer}.hook_resid_post"
        settings: dict[str, Any] = {"d_in": WIDTH, "d_sae": FEATURES}
        if case.kind != "sae":
            settings |= {"d_out": WIDTH, "apply_b_dec_to_input": False}
            hook = f"blocks.{layer}.mlp.hook_in"
        if case.activation == "topk":
            # the last layer selects by pre-activation times decoder norm
            settings |= {"k": K, "rescale_acts_by_decoder_norm": layer == LAYERS - 1}
        config = config_class(**settings)
        config.metadata.hook_name = hook
        config.metadata.hook_name_out = f"blocks.{layer}.hook_mlp_out"
        sae = sae_class(config)
        for number, (name, parameter) in enumerate(sae.named_parameters()):
            value = draw(*parameter.shape, seed=10 * layer + number)
            parameter.data = value.abs() if name == "threshold" else value
        sae.save_model(home / hook)
        saes.append(sae)
    return output(saes, x)


if __name__ == "__main__":
    made = {Case("saelens", *combination): make for combination in ARCHITECTURES}
    serve(read, made, ["sae-lens", "torch"])
