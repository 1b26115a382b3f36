"""circuit-tracer reads our exports and writes its own. Runs in its environment.

Its loader of 0.5.0 passes over `activation: topk` of a configuration; there its TopK is put in by
hand. It reads Gemma Scope's files and does not write them.
"""

from pathlib import Path

import torch
import yaml
from circuit_tracer.transcoder.activation_functions import JumpReLU, TopK
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt
from circuit_tracer.transcoder.single_layer_transcoder import (
    SingleLayerTranscoder,
    TranscoderSet,
    load_gemma_scope_2_transcoder,
    load_gemma_scope_transcoder,
    load_transcoder_set,
)
from torch import Tensor

from benchmarks.interop_cases import FEATURES, LAYERS, WIDTH, Case, K, draw, serve

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
KINDS = [
    (kind, activation)
    for kind in ("transcoder", "skip-transcoder")
    for activation in ("relu", "jumprelu", "signed-topk")
]


def output(transcoders: TranscoderSet, x: Tensor) -> Tensor:
    return transcoders.decode(transcoders.encode(x), x)


def read(home: Path, case: Case, x: Tensor) -> Tensor:
    if case.format == "circuit-tracer-clt":
        return load_clt(str(home), lazy_decoder=False, **CPU)(x)
    if case.format == "gemma-scope":
        files = sorted(home.rglob("params.npz"))
        made = {i: load_gemma_scope_transcoder(str(f), i, **CPU) for i, f in enumerate(files)}
        return output(TranscoderSet(made, "ln2.hook_normalized", "hook_mlp_out"), x)
    if case.format == "gemma-scope-2":
        files = sorted(home.rglob("params.safetensors"))
        made = {i: load_gemma_scope_2_transcoder(str(f), i, **CPU) for i, f in enumerate(files)}
        return output(TranscoderSet(made, "mlp.hook_in", "hook_mlp_out"), x)
    config = yaml.safe_load((home / "config.yaml").read_text())
    paths = {layer: str(home / f"layer_{layer}.safetensors") for layer in range(LAYERS)}
    loaded = load_transcoder_set(
        paths,
        scan="",
        feature_input_hook=config["feature_input_hook"],
        feature_output_hook=config["feature_output_hook"],
        **CPU,
    )
    if config.get("activation") == "topk":
        for transcoder in loaded:
            if not isinstance(transcoder.activation_function, TopK):
                transcoder.activation_function = TopK(config["k"])
    return output(loaded, x)


def make_set(home: Path, case: Case, x: Tensor) -> Tensor:
    made = {}
    for layer in range(LAYERS):
        threshold = draw(FEATURES, seed=layer).abs()
        activation = {"relu": torch.relu, "jumprelu": JumpReLU(threshold), "signed-topk": TopK(K)}
        transcoder = SingleLayerTranscoder(
            WIDTH,
            FEATURES,
            activation[case.activation],
            layer,
            skip_connection=case.kind == "skip-transcoder",
            **CPU,
        )
        for number, parameter in enumerate(transcoder.parameters()):
            if parameter is not getattr(transcoder.activation_function, "threshold", None):
                parameter.data = draw(*parameter.shape, seed=10 * layer + number)
        made[layer] = transcoder
    transcoders = TranscoderSet(made, "mlp.hook_in", "hook_mlp_out")
    transcoders.to_safetensors(str(home))
    config = {
        "model_kind": "transcoder_set",
        "model_name": "random",
        "feature_input_hook": transcoders.feature_input_hook,
        "feature_output_hook": transcoders.feature_output_hook,
    }
    if case.activation == "signed-topk":
        config |= {"activation": "topk", "k": K}
    (home / "config.yaml").write_text(yaml.safe_dump(config))
    return output(transcoders, x)


def make_clt(home: Path, case: Case, x: Tensor) -> Tensor:
    activation = "jump_relu" if case.activation == "jumprelu" else "relu"
    clt = CrossLayerTranscoder(
        LAYERS, FEATURES, WIDTH, activation_function=activation, lazy_decoder=False, **CPU
    )
    for number, (name, parameter) in enumerate(clt.named_parameters()):
        value = draw(*parameter.shape, seed=number)
        parameter.data = value.abs() if name.endswith("threshold") else value
    clt.to_safetensors(str(home))
    config = {
        "model_kind": "cross_layer_transcoder",
        "model_name": "random",
        "feature_input_hook": clt.feature_input_hook,
        "feature_output_hook": clt.feature_output_hook,
    }
    (home / "config.yaml").write_text(yaml.safe_dump(config))
    return clt(x)


if __name__ == "__main__":
    cases = {Case("circuit-tracer", *combination): make_set for combination in KINDS}
    cases |= {Case("circuit-tracer-clt", "clt", name): make_clt for name in ("relu", "jumprelu")}
    serve(read, cases, ["circuit-tracer", "torch"])
