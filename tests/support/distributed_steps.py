"""Run by torchrun: steps of every kind and activation, spread over processes and alone.

Prints one JSON line from the first process: by case, the largest difference of any tensor relative
to the tensor's largest value, and of the FVU.
"""

import json
import sys

import torch

from pellucid.core.types import Site
from pellucid.distributed.processes import ALONE, Processes, joined
from pellucid.training.config import TrainConfig
from pellucid.training.layer import LayerTraining, step_together
from pellucid.training.step import StepMetrics

KINDS = ["transcoder", "skip-transcoder", "sae", "clt"]
ACTIVATIONS = ["topk", "batchtopk", "jumprelu", "relu"]
BATCH, STEPS, LAYERS, FEATURES = 64, 4, 2, 48


def batches(kind: str) -> list[list[torch.Tensor]]:
    """By step, the inputs of all layers and then their outputs."""
    generator = torch.Generator().manual_seed(0)
    layers = LAYERS if kind == "clt" else 1
    made = []
    for _ in range(STEPS):
        xs = [torch.randn(BATCH, 9, generator=generator) * 3 + 1 for _ in range(layers)]
        out = [torch.randn(BATCH, 7, generator=generator) for _ in range(layers)]
        made.append(xs + (xs if kind == "sae" else out))
    return made


def trained(
    config: TrainConfig, processes: Processes
) -> tuple[list[LayerTraining], list[StepMetrics]]:
    share = processes.teams.tokens.share(BATCH)
    mine = [[part[share] for part in batch] for batch in batches(config.kind)]
    layers = len(mine[0]) // 2
    trainings = [
        LayerTraining.start(
            config,
            mine[0][m],
            mine[0][layers + m],
            read_site=Site("mlp_in", m),
            write_site=Site("mlp_in" if config.kind == "sae" else "mlp_out", m),
            total_tokens=STEPS * BATCH,
            generator=torch.Generator().manual_seed(m),
            later=mine[0][layers + m + 1 :],
            teams=processes.teams,
        )
        for m in range(layers)
    ]
    metrics: list[StepMetrics] = []
    for batch in mine:
        metrics = step_together(trainings, batch[:layers], batch[layers:])
    return trainings, metrics


def difference(config: TrainConfig, processes: Processes) -> dict[str, float]:
    spread, metrics = trained(config, processes)
    whole, expected = trained(config, ALONE)
    rows = processes.teams.features.share(FEATURES)
    largest = 0.0
    for part, reference in zip(spread, whole, strict=True):
        for name, tensor in reference.tensors().items():
            found = part.tensors()[name]
            wanted = tensor if found.shape == tensor.shape else tensor[rows]
            error = float((found.double() - wanted.double()).abs().max())
            largest = max(largest, error / max(1e-3, float(wanted.double().abs().max())))
    fvu = max(abs(a.fvu - b.fvu) for a, b in zip(metrics, expected, strict=True))
    return {"tensors": largest, "fvu": fvu}


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    with joined(sys.argv[1], "cpu") as processes:
        for kind in KINDS:
            for activation in ACTIVATIONS:
                config = TrainConfig(
                    kind=kind,
                    activation=activation,
                    num_features=FEATURES,
                    k=5,
                    prefixes=(11, 30) if activation in ("topk", "jumprelu") else (),
                    batch_tokens=BATCH,
                    dead_after=BATCH,
                    learning_rate=1e-3,
                    epsilon=1e-3,
                )
                worst = difference(config, processes)
                for name, value in worst.items():
                    everyone = processes.everyone.stack(torch.tensor(value))
                    found[f"{kind} {activation} {name}"] = float(everyone.max())
        if processes.first:
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
