"""The offline page of one chain of thought."""

from pellucid.verification.page.html import chain_page

__all__ = ["chain_page"]
