"""The forms in which a traced graph is written."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from pellucid.core.files import write_text
from pellucid.graphs.formats.neuronpedia import to_neuronpedia
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.page import to_html


def write_graph(graph: AttributionGraph, paths: Mapping[str, Path]) -> dict[str, str]:
    """Write a graph in several forms.

    Args:
        graph: the graph.
        paths: form ("pellucid", "neuronpedia" or "html") -> file.

    Returns:
        What was written, under the names `graph`, `json` and `html`.

    Raises:
        StorageError: the disk refuses.
    """
    written = {}
    for form, path in paths.items():
        name, write = _WRITERS[form]
        write(graph, path)
        written[name] = str(path)
    return written


def _write_pellucid(graph: AttributionGraph, path: Path) -> None:
    graph.save(path)


def _write_neuronpedia(graph: AttributionGraph, path: Path) -> None:
    scan = _name(str(graph.metadata.get("dictionaries", "")))
    record = to_neuronpedia(graph, slug=_name(path.stem), scan=scan)
    write_text(path, json.dumps(record, allow_nan=False) + "\n")


def _name(text: str) -> str:
    """The text in the characters that the format allows in names."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text) or "unnamed"


def _write_html(graph: AttributionGraph, path: Path) -> None:
    write_text(path, to_html(graph))


_WRITERS: dict[str, tuple[str, Callable[[AttributionGraph, Path], None]]] = {
    "pellucid": ("graph", _write_pellucid),
    "neuronpedia": ("json", _write_neuronpedia),
    "html": ("html", _write_html),
}
