"""Putting the page of a chain together: one file that needs no network.

A step's graph is drawn by the graph's own page in a frame without rights, which is made from the
data when it is opened. Both scripts and both styles are admitted by their hashes, nothing else is,
and every text is set as text.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from pellucid.graphs.page.embed import assemble, source_hash
from pellucid.graphs.page.html import asset as graph_asset
from pellucid.graphs.page.html import page_script
from pellucid.verification.page.payload import Feature, chain_payload
from pellucid.verification.watching.band import Band
from pellucid.verification.watching.watch import WatchedStep

HOLE = "@GRAPH@"
"""Stands in the graph's page for its data."""


def chain_page(
    prompt: str,
    steps: Sequence[WatchedStep],
    *,
    band: Band | None = None,
    repairs: Sequence[Mapping[str, Any]] = (),
    examples: Mapping[Feature, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """A chain as one HTML page: steps by how likely they are wrong, and why.

    Args:
        prompt: that the chain followed.
        steps: as they were judged; their graphs are shown where they were kept.
        band: that decided which graphs were needed.
        repairs: records of `step`, `outcome` and `tried`, a list of `feature`, `operation` and
            `outcome`.
        examples: (layer, index) -> top examples of a feature, as records of `before`, `token`,
            `after` and `activation`; those of this chain where a feature has none.
    """
    frame = assemble(
        graph_asset("template.html"),
        style=graph_asset("page.css"),
        script=page_script(),
        data=HOLE,
    )
    template = _asset("chain.html")
    for name, source in (("SCRIPT", page_script()), ("STYLE", graph_asset("page.css"))):
        template = template.replace(f"@FRAME_{name}_HASH@", source_hash(source))
    payload = chain_payload(prompt, steps, band=band, repairs=repairs, examples=examples)
    return assemble(
        template,
        style=graph_asset("page.css") + _asset("chain.css"),
        script=_asset("chain.js"),
        data=payload | {"frame": frame},
    )


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
