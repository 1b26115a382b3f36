"""llamascopium reads our exports and writes its own. Runs in its environment.

What it writes is scaled by mean norms (`dataset-wise`) and selects by decoder norm.
"""

from pathlib import Path

import torch
from llamascopium.models.clt import CLTConfig, CrossLayerTranscoder
from llamascopium.models.sae import SAEConfig, SparseAutoEncoder
from llamascopium.models.sparse_dictionary import SparseDictionary
from torch import Tensor

from benchmarks.interop_cases import FEATURES, LAYERS, WIDTH, Case, K, draw, serve

SINGLE = [(kind, name) for kind in ("sae", "transcoder") for name in ("relu", "topk", "jumprelu")]


def output(model: SparseDictionary, x: Tensor) -> Tensor:
    """Of one dictionary, in the scale of the activations themselves."""
    batch = dict.fromkeys(model.cfg.hooks_in, x)
    if isinstance(model, CrossLayerTranscoder):
        batch = {hook: x[layer] for layer, hook in enumerate(model.cfg.hooks_in)}
    scales = {hook: model.compute_norm_factor(x, hook) for hook in model.cfg.associated_hook_points}
    scaled = {hook: value * scales[hook] for hook, value in batch.items()}
    given, keywords, *_ = model.prepare_input(scaled)
    written = model.decode(model.encode(given, **keywords))
    if isinstance(model, CrossLayerTranscoder):
        hooks = model.cfg.hooks_out
        return torch.stack([written[i] / scales[hook] for i, hook in enumerate(hooks)])
    return written / scales[model.cfg.hooks_out[0]]


def read(home: Path, case: Case, x: Tensor) -> Tensor:
    if case.kind == "clt":
        return output(SparseDictionary.from_pretrained(str(home)), x)
    homes = sorted(home.glob("blocks*"))
    return torch.stack(
        [output(SparseDictionary.from_pretrained(str(h)), x[i]) for i, h in enumerate(homes)]
    )


def fill(model: SparseDictionary, seed: int) -> None:
    for number, (name, parameter) in enumerate(model.named_parameters()):
        value = draw(*parameter.shape, seed=10 * seed + number)
        parameter.data = value - 2 if name.endswith("log_jumprelu_threshold") else value
    hooks = dict.fromkeys(model.cfg.associated_hook_points)
    norms = {hook: 3.0 + number for number, hook in enumerate(hooks)}
    model.set_dataset_average_activation_norm(norms)


def make(home: Path, case: Case, x: Tensor) -> Tensor:
    outputs = []
    for layer in range(LAYERS):
        same = case.kind == "sae"
        reads = f"blocks.{layer}.hook_resid_post" if same else f"blocks.{layer}.mlp.hook_in"
        config = SAEConfig(
            d_model=WIDTH,
            expansion_factor=FEATURES / WIDTH,
            act_fn=case.activation,
            top_k=K,
            hook_point_in=reads,
            hook_point_out=reads if same else f"blocks.{layer}.hook_mlp_out",
            dtype=torch.float32,
        )
        model = SparseAutoEncoder(config)
        fill(model, layer)
        model.save_pretrained(str(home / reads))
        config.save_hyperparameters(str(home / reads))
        outputs.append(output(model, x[layer]))
    return torch.stack(outputs)


def make_clt(home: Path, case: Case, x: Tensor) -> Tensor:
    config = CLTConfig(
        d_model=WIDTH,
        expansion_factor=FEATURES / WIDTH,
        act_fn=case.activation,
        top_k=K,
        hook_points_in=[f"blocks.{layer}.hook_resid_mid" for layer in range(LAYERS)],
        hook_points_out=[f"blocks.{layer}.hook_mlp_out" for layer in range(LAYERS)],
        dtype=torch.float32,
    )
    model = CrossLayerTranscoder(config)
    fill(model, 0)
    model.save_pretrained(str(home))
    config.save_hyperparameters(str(home))
    return output(model, x)


if __name__ == "__main__":
    cases = {Case("llamascopium", *combination): make for combination in SINGLE}
    cases |= {Case("llamascopium", "clt", name): make_clt for name in ("relu", "topk", "jumprelu")}
    serve(read, cases, ["llamascopium", "torch"])
