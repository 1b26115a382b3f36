"""The one place where names of other tools become sites, and sites their names.

| TransformerLens | site |
|---|---|
| `hook_resid_pre`, `hook_resid_mid`, `hook_resid_post` | the same |
| `hook_mlp_in` | `resid_mid`: the residual before the norm |
| `ln2.hook_normalized` | normalised, before the gain: `mlp_in` once the gain is folded in |
| `mlp.hook_in` | `mlp_in` |
| `hook_attn_out`, `hook_mlp_out` | the same: what is added, after any post-norm |

Module paths of Hugging Face are given from the base model (`layers.3.mlp`); which site the input or
the output of a module is depends on the model's family, so they become sites only where the model
is known, and stay module sites otherwise.
"""

import re
from dataclasses import dataclass

from pellucid.core.errors import DictionaryError, SiteError
from pellucid.core.types import AnySite, ModuleSite, Side, Site, SiteKind
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.formats.host import HostModel, Norm
from pellucid.dictionaries.formats.parts import Parts, layer_of

NORMALISED = "ln2.hook_normalized"
_KINDS: dict[str, SiteKind] = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_mlp_in": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_in": "mlp_in",
    NORMALISED: "mlp_in",
}
_HOOKS: dict[SiteKind, str] = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "mlp_in": "mlp.hook_in",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_HF_KINDS: dict[str, SiteKind] = {
    "pre_feedforward_layernorm.output": "mlp_in",
    "post_feedforward_layernorm.output": "mlp_out",
    "input": "resid_pre",
    "output": "resid_post",
}
_HF_POINT = re.compile(
    rf"(?:model\.)?(?:language_model\.)?layers\.(\d+)\.({'|'.join(map(re.escape, _HF_KINDS))})"
)
_SEARCHED: tuple[SiteKind, ...] = (
    *("mlp_in", "mlp_out", "attn_out"),
    *("resid_mid", "resid_pre", "resid_post"),
)


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook: the site it is, or becomes once the norm's gain is folded in."""

    site: AnySite
    before_gain: bool = False


def hook_of_name(name: str) -> Hook:
    """The hook of a full name such as `blocks.3.hook_mlp_out`.

    Raises:
        DictionaryError: it is no place that pellucid has a site for.
    """
    match = _BLOCK.fullmatch(name)
    if match is None:
        raise _no_site(name)
    return hook_of_layer(match[2], int(match[1]))


def hook_of_layer(name: str, layer: int) -> Hook:
    """The hook of a name inside a block, such as `mlp.hook_in`.

    Raises:
        DictionaryError: it is no place that pellucid has a site for.
    """
    if name not in _KINDS:
        raise _no_site(f"blocks.{layer}.{name}")
    return Hook(Site(_KINDS[name], layer), before_gain=name == NORMALISED)


def hook_name(site: AnySite, *, full: bool = True) -> str:
    """The hook that a site is; inside its block unless `full`.

    Raises:
        DictionaryError: TransformerLens has no hook there.
    """
    if not isinstance(site, Site) or site.kind not in _HOOKS:
        raise DictionaryError(
            f"TransformerLens has no hook at {site}; give the model (--model), whose description "
            "says which site a module's side is, or export to sparsify, which names modules"
        )
    name = _HOOKS[site.kind]
    return f"blocks.{site.layer}.{name}" if full else name


def placed(parts: Parts, read: Hook, write: Hook, host: HostModel | None) -> Dictionary:
    """The dictionary between two hooks, moved behind the norm's gain where it reads before it.

    Raises:
        DictionaryError: the gain is needed and no model is given; it has a 0; or an output lies
            before the gain.
    """
    if write.before_gain:
        raise DictionaryError(
            f"the dictionary writes {NORMALISED} of layer {layer_of(write.site)}, the normalised "
            "residual before the norm's gain; pellucid has no such site and cannot read it"
        )
    if read.before_gain:
        norm = mlp_norm(layer_of(read.site) or 0, host)
        parts = parts.after_gain(norm.gain, norm.bias)
    return parts.build(read.site, write.site)


def mlp_norm(layer: int, host: HostModel | None) -> Norm:
    """The norm whose gain lies between `ln2.hook_normalized` and `mlp_in`.

    Raises:
        DictionaryError: no model is given, or it has no norm there.
    """
    if host is None:
        raise DictionaryError(
            f"these dictionaries read {NORMALISED}, the normalised residual before the norm's "
            "gain, where pellucid reads after it; give the model (--model), so that its gain is "
            "folded into the encoder"
        )
    norm = host.block(layer).mlp_norm
    if norm is None:
        raise DictionaryError(f"{host.name} has no norm before the MLP of layer {layer}")
    return norm


def site_of_module(path: str, side: Side, host: HostModel | None) -> AnySite:
    """The site that a side of a module is; the module's side itself where none is known.

    Args:
        path: from the base model or from the whole one.
        side: "input" or "output".
        host: the model; without it nothing is translated.

    Raises:
        SiteError: the model has no such module.
    """
    if host is None:
        return ModuleSite(path, side)
    site = ModuleSite(_full_path(path, host), side)
    host.point(site)
    layer = layer_of(site)
    if layer is None or layer >= host.n_layers:
        return site
    for kind in _SEARCHED:
        candidate = Site(kind, layer)
        try:
            point = host.point(candidate)
        except SiteError:
            continue
        if (point.path, point.side) == (site.path, side):
            return candidate
    if _is_norm_of_mlp(site, layer, host):
        return Site("mlp_in", layer)
    return site


def site_of_hf_hook(text: str, host: HostModel | None) -> AnySite:
    """The site of a text such as `model.layers.3.post_feedforward_layernorm.output`.

    The norms around the MLP that these names speak of say by themselves what lies there.

    Raises:
        DictionaryError: the text names no side of a module.
        SiteError: the model has no such module.
    """
    path, _, side = text.rpartition(".")
    if not path or side not in ("input", "output"):
        raise DictionaryError(
            f"{text!r} is no side of a module; it should end in .input or .output"
        )
    match = _HF_POINT.fullmatch(text)
    if match is not None:
        return Site(_HF_KINDS[match[2]], int(match[1]))
    return site_of_module(path, "input" if side == "input" else "output", host)


def module_of_site(site: AnySite, host: HostModel | None) -> tuple[str, Side]:
    """The module and the side of it that a site is, its path from the base model.

    Raises:
        DictionaryError: the site is not a module's side and no model is given.
        SiteError: the model has no such site.
    """
    if isinstance(site, ModuleSite):
        path, side = site.path, site.side
    elif host is None:
        raise DictionaryError(
            f"this format names places by module path, and which module {site} belongs to depends "
            "on the model; give the model (--model)"
        )
    else:
        point = host.point(site)
        path, side = point.path, "input" if point.side == "input" else "output"
    return path.removeprefix(_base(host)), side


def _full_path(path: str, host: HostModel) -> str:
    base = _base(host)
    return path if path.startswith(base) else base + path


def _base(host: HostModel | None) -> str:
    """What comes before the base model's own paths, such as `model.`; empty without a model."""
    prefix = getattr(getattr(host, "module", None), "base_model_prefix", "")
    return f"{prefix}." if prefix and hasattr(getattr(host, "module", None), prefix) else ""


def _is_norm_of_mlp(site: ModuleSite, layer: int, host: HostModel) -> bool:
    """Whether the site is the output of the norm that the MLP reads."""
    try:
        norm = host.block(layer).mlp_norm
    except SiteError:
        return False
    return site.side == "output" and norm is not None and norm.path == site.path


def _no_site(name: str) -> DictionaryError:
    known = ", ".join(sorted(_KINDS))
    return DictionaryError(
        f"hook {name!r} is no site of pellucid (those of a block are {known}); dictionaries there "
        "cannot be used"
    )
