"""Everything a described model shows in one forward: what the conformance checks look at."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import ConformanceError
from pellucid.core.types import Site
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall, TapFunction, TapPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One forward of a model.

    Attributes:
        ids: the tokens given, `[B, S]`.
        embeddings: what the embedding modules returned: tokens, then learned positions if any.
        sites: the value at every site of the model.
        calls: by module path, the call of every norm, attention, MLP, embedding and unembedding.
        logits: `[B, S, V]`.
    """

    ids: Int[Tensor, "B S"]
    embeddings: list[Float[Tensor, "..."]]
    sites: dict[Site, Float[Tensor, "B S d"]]
    calls: dict[str, TapCall]
    logits: Float[Tensor, "B S V"]


def all_sites(model: LanguageModel) -> list[Site]:
    """Every site of the model, in the order in which a forward computes them."""
    assert model.spec is not None
    sites = [Site("embed")]
    for layer in range(model.n_layers):
        sites += [Site("resid_pre", layer), Site("attn_out", layer)]
        if not model.spec.parallel:
            sites.append(Site("resid_mid", layer))
        sites += [Site("mlp_in", layer), Site("mlp_out", layer), Site("resid_post", layer)]
    return sites


def residual_sums(model: LanguageModel) -> list[tuple[Site, tuple[Site, ...]]]:
    """Each residual site after the first with the sites whose sum it is."""
    assert model.spec is not None
    sums: list[tuple[Site, tuple[Site, ...]]] = []
    for layer in range(model.n_layers):
        pre, mid, post = (Site(kind, layer) for kind in ("resid_pre", "resid_mid", "resid_post"))
        attn_out, mlp_out = Site("attn_out", layer), Site("mlp_out", layer)
        if layer > 0:
            sums.append((pre, (Site("resid_post", layer - 1),)))
        if model.spec.parallel:
            sums.append((post, (pre, attn_out, mlp_out)))
        else:
            sums += [(mid, (pre, attn_out)), (post, (mid, mlp_out))]
    return sums


def observe(
    model: LanguageModel,
    ids: Int[Tensor, "B S"],
    *,
    edits: Sequence[tuple[Site, TapFunction]] = (),
) -> Observation:
    """Run the model once, with the given edits, and keep what it shows.

    Raises:
        ConformanceError: a module of the description was not run.
        SiteError: a module of the description does not exist.
    """
    sites: dict[Site, Tensor] = {}
    calls: dict[str, TapCall] = {}

    def keep_site(site: Site) -> tuple[Site, TapFunction]:
        def keep(value: Tensor, _: TapCall) -> None:
            sites[site] = value

        return site, keep

    def keep_call(path: str) -> tuple[TapPoint, TapFunction]:
        def keep(_: Tensor, call: TapCall) -> None:
            calls[path] = call

        return TapPoint(path, "output"), keep

    paths = _module_paths(model)
    readers = [keep_site(site) for site in all_sites(model)]
    with model.tapped([*edits, *readers, *(keep_call(path) for path in paths)]):
        logits = model.logits(ids)
    for path in paths:
        if path not in calls:
            raise ConformanceError(
                f"{model.name}: the module {path!r} exists but is not run; the description of the "
                "family does not fit this version of the model"
            )
    embeddings = [calls[path].outputs[0] for path in _embedding_paths(model)]
    return Observation(ids=ids, embeddings=embeddings, sites=sites, calls=calls, logits=logits)


def _module_paths(model: LanguageModel) -> list[str]:
    """The modules whose calls the checks compare."""
    spec = model.spec
    assert spec is not None
    paths = [*_embedding_paths(model), spec.final_norm, spec.unembedding]
    for layer in range(model.n_layers):
        for inside in (
            spec.attn_norm,
            spec.attention,
            spec.attn_post_norm,
            spec.mlp_norm,
            spec.mlp,
            spec.mlp_post_norm,
        ):
            if inside is not None:
                paths.append(spec.block_path(layer, inside))
    return paths


def _embedding_paths(model: LanguageModel) -> list[str]:
    assert model.spec is not None
    paths = [model.spec.embedding, model.spec.positions]
    return [path for path in paths if path is not None]
