"""nnsight's side of the patching benchmark: one trace a patch, and all patches as one batch."""

import torch
from nnsight import LanguageModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.patching_task import PatchingTask, Sweep, serve


def prepare(task: PatchingTask) -> dict[str, Sweep]:
    module = AutoModelForCausalLM.from_pretrained(task.model, attn_implementation="eager")
    model = LanguageModel(module, tokenizer=AutoTokenizer.from_pretrained(task.model))
    clean, corrupt = torch.tensor([task.clean]), torch.tensor([task.corrupt])
    length = len(task.clean)

    def clean_values() -> list[torch.Tensor]:
        with model.trace(clean):
            values = list().save()  # noqa: C408  (a literal has no save)
            for layer in range(task.layers):
                values.append(model.model.layers[layer].input)
        return list(values)

    def grid(logits: list[torch.Tensor]) -> list[list[float]]:
        values = torch.stack(list(logits))[:, 0]
        return (values[:, task.answer] - values[:, task.other]).view(task.layers, -1).tolist()

    def loop() -> list[list[float]]:
        values, found = clean_values(), []
        for layer in range(task.layers):
            for position in range(length):
                with model.trace(corrupt):
                    model.model.layers[layer].input[:, position] = values[layer][:, position]
                    logits = model.lm_head.output[:, -1].save()
                found.append(logits)
        return grid(found)

    def one_batch() -> list[list[float]]:
        values = clean_values()
        with model.trace() as tracer:
            found = list().save()  # noqa: C408  (a literal has no save)
            for layer in range(task.layers):
                for position in range(length):
                    with tracer.invoke(corrupt):
                        model.model.layers[layer].input[:, position] = values[layer][:, position]
                        found.append(model.lm_head.output[:, -1])
        return grid(found)

    return {"nnsight, a trace a patch": loop, "nnsight, one batch": one_batch}


if __name__ == "__main__":
    serve(prepare, ["nnsight"])
