"""The model card of a finished run: what a person who finds the folder must know."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid.core.files import write_text
from pellucid.core.manifest import MANIFEST_NAME
from pellucid.core.pictures import save_picture
from pellucid.training.metrics import MetricsLog
from pellucid.training.recorder import METRICS_NAME

CARD_NAME = "README.md"
CURVES_NAME = "curves.svg"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!&~$])")
_LOADING = "import pellucid\n\ndictionaries = pellucid.load_dictionaries({})"
_FIGURES = {"fvu": "FVU", "l0": "L0", "dead": "dead"}
_MOST_POINTS = 500
_MOST_NAMED = 12


def write_card(folder: Path, *, model: str, data: str) -> Path:
    """Write `README.md` and `curves.svg` into the folder of a finished run.

    Everything but the two names is read from the run's manifest and log.

    Args:
        folder: of the run.
        model: what the user called the model.
        data: what the user called the text.

    Returns:
        The card.

    Raises:
        StorageError: the disk refuses.
    """
    manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    records = MetricsLog(folder / METRICS_NAME).records()
    if records:
        save_picture(curves_picture(records), folder / CURVES_NAME)
    card = folder / CARD_NAME
    write_text(card, card_text(folder.name, manifest, records, model=model, data=data))
    return card


def card_text(
    name: str,
    manifest: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    *,
    model: str,
    data: str,
) -> str:
    """The card: a metadata header as the hub wants it, then Markdown with user text escaped.

    Args:
        name: of the folder.
        manifest: of the dictionaries.
        records: of the log.
        model: what the user called the model.
        data: what the user called the text.
    """
    training, results = manifest["config"]["training"], manifest["results"]
    measured = [record["measured"] for record in records if "measured" in record]
    parts = [
        f"---\n{_metadata(training['kind'], model, data)}\n---",
        f"# {escaped(name)}",
        f"Sparse dictionaries ({escaped(training['kind'])}, {escaped(training['activation'])}) of "
        f"the language model {escaped(model)}, trained with Pellucid on {results['tokens']:,} "
        f"tokens of {escaped(data)}.",
        "## How to load",
        f"```python\n{_LOADING.format(json.dumps(name))}\n```",
        "The argument is the path of this folder, or its name on the hub.",
        "## Figures",
        f"On {escaped(results['measured_on'])}: FVU is the fraction of variance unexplained, L0 "
        "the mean number of active features a token, dead the share of features that never fire "
        "there, dense the share that fires on more than a tenth of the tokens.",
        _layer_table(results["layers"], manifest["config"]["layers"]),
        _replaced(measured[-1]) if measured else "",
        f"## Curves\n\n![FVU, L0 and dead share over tokens]({CURVES_NAME})" if records else "",
        "## Settings",
        _table(("setting", "value"), [(key, _plain(training[key])) for key in sorted(training)]),
        "Versions: " + ", ".join(f"{k} {v}" for k, v in sorted(manifest["versions"].items())) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def curves_picture(records: Sequence[Mapping[str, Any]]) -> Any:
    """A matplotlib figure of FVU, L0 and dead share over tokens, a line a layer.

    Args:
        records: of the log, at least one; a long log is thinned.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 2.8), layout="constrained")
    records = [*records[:: -(-len(records) // _MOST_POINTS)], records[-1]]
    tokens = [record["tokens"] for record in records]
    for axis, (key, label) in zip(figure.subplots(1, 3), _FIGURES.items(), strict=True):
        for place, layer in enumerate(records[0]["layers"]):
            heights = [record["layers"][place][key] for record in records]
            axis.plot(tokens, heights, linewidth=1.0, label=f"layer {layer['layer']}")
        axis.set_title(label, fontsize=9)
        axis.set_xlabel("tokens", fontsize=8)
        axis.tick_params(labelsize=7)
    if len(records[0]["layers"]) <= _MOST_NAMED:
        axis.legend(fontsize=6)
    return figure


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def _metadata(kind: str, model: str, data: str) -> str:
    from huggingface_hub import ModelCardData

    return str(
        ModelCardData(
            library_name="pellucid",
            tags=["interpretability", "sparse-dictionary", kind],
            base_model=_hub_id(model),
            datasets=[dataset] if (dataset := _hub_id(data.partition(":")[0])) else None,
        ).to_yaml()
    )


def _hub_id(name: str) -> str | None:
    """The name, if it can be one on the hub and is not that of a folder here."""
    return name if _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def _layer_table(layers: Iterable[Mapping[str, Any]], described: Mapping[str, Any]) -> str:
    rows = [
        (
            str(layer["layer"]),
            described[str(layer["layer"])]["read_site"],
            described[str(layer["layer"])]["write_site"],
            f"{layer['fvu']:.4f}",
            f"{layer['l0']:.1f}",
            f"{layer['dead']:.1%}",
            f"{layer['dense']:.1%}" if "dense" in layer else "",
        )
        for layer in layers
    ]
    return _table(("layer", "reads", "writes", "FVU", "L0", "dead", "dense"), rows)


def _replaced(measured: Mapping[str, Any]) -> str:
    if "kl" not in measured:
        return ""
    return (
        "With the MLPs of all these layers replaced at once, measured during training on a small "
        f"held-out sample: cross-entropy {measured['ce']:.4f} (the original's "
        f"{measured['original_ce']:.4f}), KL {measured['kl']:.4f}, the same most likely token at "
        f"{measured['top1']:.1%}."
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([*map(escaped, row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
