"""Which sites each layer's dictionary reads and writes."""

from collections.abc import Sequence
from typing import NamedTuple

from pellucid.core.errors import ConfigError
from pellucid.core.types import AnySite, ModuleSite, Side, Site, parse_site
from pellucid.models.model import LanguageModel

LAYER_FIELD = "{layer}"


class LayerSites(NamedTuple):
    """What one dictionary reads and what it should write."""

    read: AnySite
    write: AnySite


def layer_sites(
    model: LanguageModel,
    kind: str,
    *,
    layers: Sequence[int] | None = None,
    read: str | None = None,
    write: str | None = None,
) -> dict[int, LayerSites]:
    """The sites of every layer's dictionary.

    A transcoder goes from `mlp_in` to `mlp_out`, an SAE from `resid_post` to itself, unless paths
    are given: the INPUT of the module `read` and the OUTPUT of the module `write`, for an SAE one
    of the two. `{layer}` in a path stands for the layer's number. The text form of a site
    (`resid_mid@{layer}`, `path:output`) says which side itself.

    Args:
        model: whose layers they are.
        kind: of dictionary, see `TrainConfig.kind`.
        layers: which; by default all, or 0 alone where no path has `{layer}`.
        read: module path or site.
        write: module path or site.

    Raises:
        ConfigError: a layer that does not exist or comes twice, or paths that do not fit the kind.
        SiteError: a path that cannot be read.
    """
    templates = _templates(kind, read, write)
    varies = all(LAYER_FIELD in template for template, _ in templates)
    if layers is None:
        layers = range(model.n_layers) if varies else [0]
    if len(layers) > 1 and not varies:
        raise ConfigError(
            f"{len(layers)} layers would train on the same module; put {LAYER_FIELD} where its "
            "path has the layer's number"
        )
    for layer in layers:
        if not 0 <= layer < model.n_layers:
            raise ConfigError(
                f"layer {layer} does not exist in {model.name}; use 0 to {model.n_layers - 1}"
            )
    if not layers or len(set(layers)) < len(layers):
        raise ConfigError(f"layers are {list(layers)}; name each layer once")
    if kind == "clt":
        _check_cross_layer(sorted(layers), read, write)
    return {
        layer: LayerSites(*(_site(template, layer, side) for template, side in templates))
        for layer in sorted(layers)
    }


def _check_cross_layer(layers: Sequence[int], read: str | None, write: str | None) -> None:
    """A cross-layer transcoder replaces the MLPs of layers that follow each other."""
    if read or write:
        raise ConfigError(
            f"a cross-layer transcoder goes from mlp_in to mlp_out, not from {read} to {write}; "
            "leave --read and --write out, or train transcoders"
        )
    if layers != list(range(layers[0], layers[-1] + 1)):
        raise ConfigError(
            f"layers are {', '.join(map(str, layers))}; those of a cross-layer transcoder follow "
            "each other"
        )


def _templates(
    kind: str, read: str | None, write: str | None
) -> tuple[tuple[str, Side], tuple[str, Side]]:
    if kind == "sae":
        if read and write:
            raise ConfigError("an SAE reads what it writes; give --read or --write, not both")
        side: Side = "input" if read else "output"
        both = (read or write or f"resid_post@{LAYER_FIELD}", side)
        return both, both
    if bool(read) != bool(write):
        raise ConfigError("a transcoder needs --read and --write together; give both or neither")
    read, write = read or f"mlp_in@{LAYER_FIELD}", write or f"mlp_out@{LAYER_FIELD}"
    return (read, "input"), (write, "output")


def _site(template: str, layer: int, side: Side) -> Site | ModuleSite:
    text = template.replace(LAYER_FIELD, str(layer))
    if "@" in text or ":" in text:
        return parse_site(text)
    return ModuleSite(text, side)
