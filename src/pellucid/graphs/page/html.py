"""Putting the page together: template, style, script and data in one file.

The script and the style are admitted by their hashes and everything else is forbidden by the
page's content security policy, so text from a model or a prompt can neither run nor load anything.
"""

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.page.payload import page_payload

SCRIPTS = ("model.js", "layout.js", "draw.js", "attention.js", "panel.js", "trust.js", "main.js")


def to_html(graph: AttributionGraph, *, max_nodes: int = 2000, max_edges: int = 200_000) -> str:
    """The graph as one HTML page that needs no network.

    Args:
        graph: the unpruned graph; the page says what it leaves out.
        max_nodes: embed at most about this many nodes, the most influential.
        max_edges: embed at most this many edges, the most influential.
    """
    script = '"use strict";\n(() => {\n' + "\n".join(map(_asset, SCRIPTS)) + "\n})();\n"
    style = _asset("page.css")
    parts = {
        "@STYLE_HASH@": _hash(style),
        "@SCRIPT_HASH@": _hash(script),
        "@STYLE@": style,
        "@SCRIPT@": script,
        "@DATA@": _script_safe(page_payload(graph, max_nodes=max_nodes, max_edges=max_edges)),
    }
    page = _asset("template.html")
    for name, text in parts.items():
        before, after = page.split(name)
        page = before + text + after
    return page


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script_safe(value: Any) -> str:
    """JSON that cannot end the script element it stands in, nor break a line."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
