"""The results as Markdown tables."""

from collections.abc import Iterator, Mapping
from typing import Any

Figure = Mapping[str, float]


def tables(cases: Mapping[str, Any]) -> str:
    """Every table of a run."""
    return "\n".join(_lines(cases))


def _lines(cases: Mapping[str, Any]) -> Iterator[str]:
    yield "### Boolean chains: shortcuts\n"
    yield from _shortcuts(cases["boolean"])
    yield "\n### Boolean chains: methods\n"
    yield from _methods(cases["boolean"])
    organism = cases["two_hop"]["organism"]
    checks = ", ".join(f"{name} {value:.2f}" for name, value in organism.items())
    yield f"\n### Two-hop organism ({checks})\n"
    yield from _methods(cases["two_hop"]["bases"])
    for task, bases in cases["specimen"].items():
        yield f"\n### Specimen: {task}\n"
        yield from _methods(bases)


def _shortcuts(bases: Mapping[str, Any]) -> Iterator[str]:
    yield "| basis | nodes | FVU by layer | written across layers | path depth | answer to flips |"
    yield "|---|---|---|---|---|---|"
    for name, result in bases.items():
        own = result["shortcut"]
        fvu = " ".join(f"{share:.3f}" for share in own["fvu"])
        yield (
            f"| {name} | {result['nodes']:.0f} | {fvu} | {own['cross_layer_share']:.2f} | "
            f"{_shown(own['path_depth'])} | {_shown(own['response_to_flips'])} |"
        )


def _methods(bases: Mapping[str, Any]) -> Iterator[str]:
    yield "| basis (nodes; f of all) | method | edge AUC | node AUC | CPR | CMD |"
    yield "|---|---|---|---|---|---|"
    for name, result in bases.items():
        head = f"{name} ({result['nodes']:.0f}; {result['faithfulness_of_all_nodes']:.2f})"
        ranked = sorted(result["methods"], key=lambda m: result["methods"][m]["cmd"]["value"])
        for method in ranked:
            figures = result["methods"][method]
            edge = result.get("edge_auc", {}).get(EDGE_NAMES.get(method, method))
            node = result.get("node_auc", {}).get(method)
            yield (
                f"| {head} | {method} | {_shown(edge)} | {_shown(node)} | "
                f"{_shown(figures['cpr'])} | {_shown(figures['cmd'])} |"
            )


EDGE_NAMES = {"attribution patching": "EAP"}
"""What a method is called on edges."""


def _shown(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
