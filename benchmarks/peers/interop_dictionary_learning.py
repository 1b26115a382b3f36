"""dictionary_learning writes its own files, which we read. Runs in its environment."""

import json
from pathlib import Path

import torch
from dictionary_learning import dictionary
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from torch import Tensor

from benchmarks.interop_cases import FEATURES, LAYERS, WIDTH, Case, K, draw, serve

CLASSES = {
    "relu": lambda: dictionary.AutoEncoder(WIDTH, FEATURES),
    "gated": lambda: dictionary.GatedAutoEncoder(WIDTH, FEATURES),
    "jumprelu": lambda: dictionary.JumpReluAutoEncoder(WIDTH, FEATURES),
    "topk": lambda: AutoEncoderTopK(WIDTH, FEATURES, K),
    "batchtopk": lambda: BatchTopKSAE(WIDTH, FEATURES, K),
}


def read(home: Path, case: Case, x: Tensor) -> Tensor:
    raise NotImplementedError("nothing is exported in this format")


def make(home: Path, case: Case, x: Tensor) -> Tensor:
    outputs = []
    for layer in range(LAYERS):
        model = CLASSES[case.activation]()
        for number, (name, parameter) in enumerate(model.named_parameters()):
            value = draw(*parameter.shape, seed=10 * layer + number)
            parameter.data = value.abs() if name == "threshold" else value
        if case.activation == "batchtopk":
            model.threshold.fill_(0.4)
        folder = home / f"layer_{layer}"
        folder.mkdir()
        torch.save(model.state_dict(), folder / "ae.pt")
        trainer = {
            "dict_class": type(model).__name__,
            "layer": layer,
            "lm_name": "random",
            "submodule_name": f"resid_post_layer_{layer}",
        }
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
        outputs.append(model(x[layer]))
    return torch.stack(outputs)


if __name__ == "__main__":
    cases = {Case("dictionary-learning", "sae", name): make for name in CLASSES}
    serve(read, cases, ["dictionary-learning", "torch"])
