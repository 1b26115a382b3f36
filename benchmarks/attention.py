"""How well QK attributions predict the real model's attention, on prompts of the specimen.

For each prompt the heads that carry most of its graph are explained, and every explained score is
checked by taking out its top features. Printed a prompt and pooled: rank correlation of predicted
with measured change, for norms held fixed and norms answering, each beside the random control, with
95% bootstrap intervals; and what it costs beside the graph itself.

    python benchmarks/attention.py [--prompts 12]
"""

import argparse
import time

import torch

import pellucid
from pellucid.attribution.attention.qk_check import pooled
from pellucid.attribution.trace import Trace
from pellucid.specimen.tasks import TASK_NAMES, evaluation_items

COLUMNS = ("real", "random", "real_answered", "random_answered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=12)
    count = parser.parse_args().prompts
    torch.set_num_threads(1)
    model = pellucid.load_model("specimen")
    dictionaries = pellucid.load_dictionaries("specimen")
    per_task = -(-count // len(TASK_NAMES))
    items = [each for task in TASK_NAMES for each in evaluation_items(task, 0, per_task)]
    prompts = list(dict.fromkeys(item.ids[: item.spans[0][0]] for item in items[:count]))
    checks, by_layer, loads = [], {}, []
    for ids in prompts:
        trace = Trace(model, list(ids), dictionaries)
        trace.graph()
        start = time.process_time()
        trace.graph()
        middle = time.process_time()
        record = trace.graph(attention=True).metadata["attention"]
        end = time.process_time()
        mine = [(head["layer"], head["qk"]["check"]) for head in record["heads"]]
        for layer, check in mine:
            by_layer.setdefault(layer, []).append(check)
        checks += [check for _, check in mine]
        loads.append(record["residual_share"])
        print(
            f"{len(ids):3d} tokens  {line(record['check'])}  no head {record['residual_share']:.2f}"
            f"  split error {record['max_error']:.0e}  cpu s {end - middle:.2f}"
            f" (graph from kept rows {middle - start:.2f})"
        )
    for layer, part in sorted(by_layer.items()):
        print(f"layer {layer}      {line(pooled(part))}")
    print(f"all {len(prompts):2d}       {line(pooled(checks))}")


def line(check: dict | None) -> str:
    if check is None:
        return "nothing to check"
    parts = []
    for name in COLUMNS:
        low, high = check[f"spearman_{name}_interval"]
        parts.append(f"{name} {check[f'spearman_{name}']:.2f} [{low:.2f}, {high:.2f}]")
    return (
        f"n {check['n']}  " + "  ".join(parts) + f"  frozen error {check['frozen_max_error']:.0e}"
    )


if __name__ == "__main__":
    main()
