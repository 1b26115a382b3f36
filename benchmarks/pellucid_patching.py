"""Our side of the patching benchmark, beside a loop of full forwards on the same model."""

import torch

from benchmarks.peers.patching_task import PatchingTask, Sweep, serve
from pellucid.core.types import Site
from pellucid.interventions.tracing import contrast, patching_sweep
from pellucid.models.load import load_model
from pellucid.models.taps import TapCall


def prepare(task: PatchingTask) -> dict[str, Sweep]:
    model = load_model(task.model, check=False)
    pair = contrast(model, task.clean, task.corrupt, answer=task.answer, other=task.other)

    def ours(skip_equal: bool) -> list[list[float]]:
        result = patching_sweep(model, pair, "resid_pre", noise=0, skip_equal=skip_equal)
        gap = pair.clean_value - pair.corrupt_value
        return (pair.corrupt_value + gap * result.effect).tolist()

    def loop() -> list[list[float]]:
        sites = [Site("resid_pre", layer) for layer in range(task.layers)]
        values = model.activations(pair.clean[None], sites)
        rows = []
        for site in sites:
            row = []
            for position in range(len(task.clean)):

                def put(
                    value: torch.Tensor, _: TapCall, site: Site = site, position: int = position
                ) -> torch.Tensor:
                    patched = value.clone()
                    patched[:, position] = values[site][:, position]
                    return patched

                with model.tapped([(site, put)]):
                    logits = model.logits(pair.corrupt[None])
                row.append(float(pair.metric(logits[:, -1])[0]))
            rows.append(row)
        return rows

    return {
        "loop of full forwards": loop,
        "pellucid, every patch run": lambda: ours(False),
        "pellucid, patches of equal values left out": lambda: ours(True),
    }


if __name__ == "__main__":
    serve(prepare, ["pellucid"])
