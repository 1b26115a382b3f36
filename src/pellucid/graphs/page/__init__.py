"""One self-contained offline page that shows a graph."""

from pellucid.graphs.page.html import to_html

__all__ = ["to_html"]
