"""The model and transcoders that the tracing benchmark runs on, built from a seed.

A Qwen3 with random weights and ReLU transcoders whose encoder biases are calibrated to a given
sparsity and whose decoders are a ridge fit, so that activity and reconstructions are sane. Both are
saved in formats that circuit-tracer and pellucid read.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.types import Site
from pellucid.dictionaries.activations import ReLU
from pellucid.dictionaries.checkpoint import save_dictionaries
from pellucid.dictionaries.transcoder import Transcoder
from pellucid.models.load import load_model
from tests.support.tiny_models import tiny_model, word_tokenizer

BOS = 1  # of `word_tokenizer`; ordinary words start at 4
CIRCUIT_TRACER_CONFIG = """\
model_name: benchmark
model_kind: {kind}
feature_input_hook: mlp.hook_in
feature_output_hook: hook_mlp_out
scan: benchmark
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSize:
    """Sizes of the model and of its transcoders.

    Attributes:
        context: the longest prompt, in tokens.
        active: mean active features a token and layer, on random prompts.
        calibration_prompts: how many prompts of `calibration_length` tokens calibrate and fit.
    """

    layers: int = 8
    d_model: int = 512
    d_mlp: int = 2048
    heads: int = 8
    vocabulary: int = 8192
    context: int = 512
    features: int = 8192
    active: float = 45.0
    calibration_prompts: int = 32
    calibration_length: int = 32


def random_prompt(length: int, *, vocabulary: int, seed: int) -> list[int]:
    """BOS and `length - 1` random words."""
    generator = torch.Generator().manual_seed(seed)
    return [BOS, *torch.randint(4, vocabulary, (length - 1,), generator=generator).tolist()]


def build(folder: Path, size: BenchmarkSize, *, seed: int = 0) -> None:
    """Write `folder/model` and `folder/transcoders`."""
    tokenizer = word_tokenizer(size.vocabulary)
    model = tiny_model(
        "qwen3",
        seed=seed,
        tokenizer=tokenizer,
        hidden_size=size.d_model,
        intermediate_size=size.d_mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        head_dim=size.d_model // size.heads,
        max_position_embeddings=size.context,
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    _build_transcoders(folder, size, seed=seed + 1)


def _build_transcoders(folder: Path, size: BenchmarkSize, *, seed: int) -> None:
    model = load_model(folder / "model")
    sites = [(Site("mlp_in", layer), Site("mlp_out", layer)) for layer in range(size.layers)]
    ids = _calibration_ids(size, seed=seed)
    activations = model.activations(ids, [site for pair in sites for site in pair])
    generator = torch.Generator().manual_seed(seed)
    transcoders = {}
    for layer, (read, write) in enumerate(sites):
        # BOS stands in every prompt and is no node of either tracer's graph.
        x_ND, y_ND = (activations[site][:, 1:].flatten(0, 1) for site in (read, write))
        tensors = _calibrated_tensors(x_ND, y_ND, size, generator)
        transcoders[layer] = Transcoder(
            **tensors, activation=ReLU(), read_site=read, write_site=write
        )
    out = save_dictionaries(
        folder / "transcoders", transcoders, model_fingerprint=model.fingerprint(), seed=seed
    )
    (out / "config.yaml").write_text(CIRCUIT_TRACER_CONFIG.format(kind="transcoder_set"))


def _calibration_ids(size: BenchmarkSize, *, seed: int) -> Int[Tensor, "B S"]:
    return torch.tensor(
        [
            random_prompt(
                size.calibration_length,
                vocabulary=size.vocabulary,
                seed=seed * size.calibration_prompts + index,
            )
            for index in range(size.calibration_prompts)
        ]
    )


def _calibrated_tensors(
    x_ND: Float[Tensor, "N d"],
    y_ND: Float[Tensor, "N d"],
    size: BenchmarkSize,
    generator: torch.Generator,
    *,
    ridge: float = 1.0,
) -> dict[str, Tensor]:
    """Random unit encoder rows, biases at the wanted quantile, decoders by ridge regression."""
    w_enc_FD = torch.randn(size.features, x_ND.shape[1], generator=generator)
    w_enc_FD /= w_enc_FD.norm(dim=1, keepdim=True)
    pre_NF = x_ND @ w_enc_FD.T
    b_enc_F = -pre_NF.quantile(1 - size.active / size.features, dim=0)
    codes_NF = (pre_NF + b_enc_F).relu()
    b_dec_D = y_ND.mean(dim=0)
    # There are fewer tokens than features, so solve in the space of tokens.
    gram_NN = codes_NF @ codes_NF.T
    gram_NN.diagonal().add_(ridge * gram_NN.diagonal().mean())
    w_dec_FD = codes_NF.T @ torch.linalg.solve(gram_NN, y_ND - b_dec_D)
    return {"W_enc": w_enc_FD, "b_enc": b_enc_F, "W_dec": w_dec_FD, "b_dec": b_dec_D}
