"""Where the queries, keys, values and outputs of attention heads are in a running model."""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pellucid.core.errors import SiteError
from pellucid.core.places import HeadSite
from pellucid.models.arch import ArchSpec
from pellucid.models.attention_layouts import weight_and_bias
from pellucid.models.linear import head_shape
from pellucid.models.taps import TapPoint, submodule


def head_columns(
    root: nn.Module, spec: ArchSpec, site: HeadSite
) -> tuple[TapPoint, Int[Tensor, " n"]]:
    """The tensor that holds a head site and the head's columns in it, all heads' for no head.

    Raises:
        SiteError: there is no such head.
    """
    heads, layout = head_shape(root, spec, site.layer), spec.layout
    attention = spec.block_path(site.layer, spec.attention)
    if site.kind == "z":
        point = TapPoint(f"{attention}.{layout.output}", "input")
        columns, count = torch.arange(heads.n_heads * heads.d_head), heads.n_heads
    else:
        path, pick, count = {
            "q": (layout.query, layout.query_rows, heads.n_heads),
            "k": (layout.key, layout.key_rows, heads.n_kv_heads),
            "v": (layout.value, layout.value_rows, heads.n_kv_heads),
        }[site.kind]
        point = TapPoint(f"{attention}.{path}", "output")
        weight, _ = weight_and_bias(submodule(root, point.path))
        columns = pick(torch.arange(weight.shape[0]), heads)
    if site.head is None:
        return point, columns
    if site.head >= count:
        what = "heads" if site.kind in "qz" else "key-value heads"
        raise SiteError(
            f"site {site} names head {site.head} of a layer with {count} {what}; use 0 to "
            f"{count - 1}"
        )
    return point, columns.view(count, heads.d_head)[site.head]
