"""Refresh the tables of docs/finetuning.md: `python -m benchmarks.finetune_tables`."""

import json
from typing import Any

from benchmarks.finetune import RESULTS
from benchmarks.tables import BLOCK, PAGE, figure, markdown
from benchmarks.tracked import RESULTS as TRACKED

FINETUNING_PAGE = PAGE.with_name("finetuning.md")
Record = dict[str, Any]
ARMS = {"kl": "fine-tuned", "local": "the control", "looser": "looser"}


def arms(result: Record) -> dict[str, str]:
    """What each arm that was measured is called."""
    return {arm: said for arm, said in ARMS.items() if arm in result["arms"]}


def tracked(result: Record) -> str:
    """Seconds and memory of gradients."""
    names = {
        "encoder product": "the encoder's product alone",
        "sparse": "a dictionary, all gradients",
        "definition": "the definition, all gradients",
    }
    rows = [
        [said, f"{each['cpu_s']:.2f}", f"{each['peak_mb'] - each['start_mb']:,.0f}"]
        for name, said in names.items()
        for each in [result["measured"][name]]
    ]
    return markdown("what, s, MB beyond the start", rows)


def predictions(result: Record) -> str:
    """Predictions before and after, a row a set."""
    compared = {arm: result["arms"][arm]["finetune"] for arm in arms(result)}
    before = compared["kl"]
    rows = [["the model itself", f"{before['original_ce']:.4f}", "", "", "", "", ""]]
    rows.append(["packaged", *_prediction(before["before"]), "", ""])
    for arm, said in arms(result).items():
        found = compared[arm]
        closed = [_share(found["ce_gap_closed"]), _share(found["kl_closed"])]
        rows.append([said, *_prediction(found["after"]), *closed])
    return markdown(
        "MLPs computed by, CE, KL, same top token, loss recovered, CE gap closed, KL closed", rows
    )


def _prediction(found: Record) -> list[str]:
    figures = [f"{found['ce']:.4f}", f"{found['kl']:.5f}", f"{found['top1']:.2%}"]
    return [*figures, f"{found['loss_recovered']:.5f}"]


def _share(change: Record) -> str:
    return f"{change['value']:.0%} ({change['low']:.0%} to {change['high']:.0%})"


def layers(result: Record) -> str:
    """Figures and drift of each layer, a row an arm and layer."""
    rows = []
    for arm, said in arms(result).items():
        for layer in result["arms"][arm]["finetune"]["layers"]:
            then, now, drift = layer["before"], layer["after"], layer["drift"]
            spreads = [drift["encoder_cosine"], drift["decoder_cosine"]]
            rows.append(
                [
                    said,
                    str(then["layer"]),
                    f"{then['fvu']:.4f} to {now['fvu']:.4f}",
                    f"{then['l0']:.2f} to {now['l0']:.2f}",
                    f"{then['dead']:.1%} to {now['dead']:.1%}",
                    *(f"{each['median']:.4f} ({each['low']:.4f})" for each in spreads),
                    f"{drift['same_tokens']['median']:.2f} ({drift['same_tokens']['low']:.2f})",
                    f"{drift['changed']:.1%}",
                    f"{drift['born']} and {drift['died']}",
                ]
            )
    return markdown(
        "arm, layer, FVU, L0, dead, encoder cosine, decoder cosine, same tokens, changed, "
        "born and died",
        rows,
    )


def tasks(result: Record) -> str:
    """Accuracy by task, a row a task in which any set differs from the model itself."""
    sets = {"original": "the model itself", "packaged": "packaged"} | arms(result)
    found = [result["tasks"][each] for each in sets]
    rows = [
        [name.replace("_", " "), *(f"{each[name]:.1%}" for each in found)]
        for name in found[0]
        if len({each[name] for each in found}) > 1
    ]
    return markdown(f"task, {', '.join(sets.values())}", rows)


def graphs(result: Record) -> str:
    """Scores and causal agreement, a row a figure."""
    sets = {"packaged": "packaged"} | arms(result)
    found = result["graphs"]
    wanted = ("replacement", "completeness", "spearman, real", "spearman, random")
    rows = [[name, *(figure(found[each][name]) for each in sets)] for name in wanted]
    return markdown(f"figure, {', '.join(sets.values())}", rows)


TABLES = {
    "tracked": (TRACKED, tracked),
    "predictions": (RESULTS, predictions),
    "layers": (RESULTS, layers),
    "tasks": (RESULTS, tasks),
    "graphs": (RESULTS, graphs),
}


def refreshed(page: str) -> str:
    """The page with every table as the results say."""

    def table(name: str) -> str:
        file, build = TABLES[name]
        return build(json.loads(file.read_text(encoding="utf-8")))

    return BLOCK.sub(lambda match: match[1] + table(match[2]) + match[3], page)


if __name__ == "__main__":
    text = FINETUNING_PAGE.read_text(encoding="utf-8")
    FINETUNING_PAGE.write_text(refreshed(text), encoding="utf-8")
