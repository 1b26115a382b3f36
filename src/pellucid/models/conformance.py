"""Checks that a family's description is true of a live model, shipped for users to run.

`check_model` is run whenever a model is loaded: a few forwards on a few tokens. `check_arch` adds
the slower checks; run it on a tiny random model before trusting a new `ArchSpec`. Every check
raises `ConformanceError`, which names the site.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from jaxtyping import Int
from torch import Tensor

from pellucid.core.errors import ConformanceError, SiteError
from pellucid.core.types import Site
from pellucid.models.linear import AttentionWeights, BlockLinear, NormWeights
from pellucid.models.model import LanguageModel
from pellucid.models.observation import Observation, all_sites, observe, residual_sums
from pellucid.models.taps import TapCall, TapFunction, TapPoint

# Largest relative error of a token's vector that rounding explains.
_TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 4e-2}
_TOLERANCE_OTHERWISE = 1e-4


class _InjectedError(Exception):
    """Raised by a tap on purpose, to see that hooks are removed after it."""


def check_model(model: LanguageModel) -> None:
    """The quick suite: weights, residual sums, norms, attention, logits, identity edits.

    Raises:
        ConformanceError: naming the site where the model and its description disagree.
    """
    check_weights(model)
    ids = probe_ids(model)
    with _misfits(model, "the description's modules"):
        seen = observe(model, ids)
    check_residual_sums(model, seen)
    check_blocks(model, seen)
    check_logits(model, seen)
    check_identity_edits(model, ids)


def check_arch(model: LanguageModel) -> None:
    """The full suite: `check_model`, then edits, early exit, padding and removal of hooks.

    Raises:
        ConformanceError: naming the site where the model and its description disagree.
    """
    check_model(model)
    ids = probe_ids(model)
    check_edits_flow(model, ids)
    check_early_exit(model, ids)
    check_padding(model, ids)
    check_hooks_removed(model, ids)


def probe_ids(model: LanguageModel) -> Int[Tensor, "1 S"]:
    """A fixed row of at most eight tokens, spread over the vocabulary."""
    length = min(8, model.context_length)
    return (torch.arange(1, length + 1, device=model.device) * 7919 % model.vocab_size)[None]


def check_weights(model: LanguageModel) -> None:
    """Every parameter is finite."""
    for name, parameter in model.module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ConformanceError(
                f"the weights of {model.name} hold NaN or infinity, first in {name!r}; restore the "
                "file or download it again"
            )


def check_residual_sums(
    model: LanguageModel, seen: Observation, *, edited: Site | None = None
) -> None:
    """Each residual site is the sum of what was added to it; one that was edited is left out."""
    first = model.point(Site("embed"))
    if edited is None or model.point(edited) != first:
        _require_sum(model, Site("embed"), seen.sites[Site("embed")], seen.embeddings)
    for site, parts in residual_sums(model):
        if site != edited:
            _require_sum(model, site, seen.sites[site], [seen.sites[part] for part in parts])


def check_blocks(model: LanguageModel, seen: Observation) -> None:
    """The frozen norms and attention reproduce what each block computes."""
    for layer in range(model.n_layers):
        with _misfits(model, f"the weights of layer {layer}"):
            block = model.block(layer)
            _check_attention_half(model, seen, block, layer)
            _check_scores(model, seen, block, layer)
            _check_mlp_half(model, seen, block, layer)


def check_logits(model: LanguageModel, seen: Observation) -> None:
    """Ours equal Hugging Face's; final norm, unembedding and softcap reproduce them."""
    assert model.spec is not None
    reference = model.module(input_ids=seen.ids).logits
    _require_close(model, "logits", seen.logits, reference)
    head_input = seen.calls[model.spec.unembedding].input
    with _misfits(model, "the final norm"):
        _check_norm(
            model,
            seen,
            model.final_norm(),
            "the final norm",
            reads=seen.sites[Site("resid_post", model.n_layers - 1)],
            gives=head_input,
        )
    logits = head_input @ model.unembedding().T
    bias, cap = model.unembedding_bias(), model.logit_softcap
    logits = logits if bias is None else logits + bias
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    _require_close(model, "logits from the unembedding", logits, reference)


def check_identity_edits(model: LanguageModel, ids: Int[Tensor, "B S"]) -> None:
    """Adding zero at every site leaves the logits the same, bit for bit."""
    sites = all_sites(model)
    reference = model.logits(ids)

    def add_zero(value: Tensor, _: TapCall) -> Tensor:
        return value + torch.zeros_like(value)

    with model.tapped([(site, add_zero) for site in sites]):
        if torch.equal(model.logits(ids), reference):
            return
    for site in sites:
        with model.tapped([(site, add_zero)]):
            logits = model.logits(ids)
        _require_equal(model, f"logits after adding zero at {site}", logits, reference)
    raise _disagreement(model, "all sites", "adding zero at all of them changes the logits")


def check_edits_flow(model: LanguageModel, ids: Int[Tensor, "B S"]) -> None:
    """An edit at any site is seen there, reaches the logits, and touches nothing before it.

    The residual sums must hold under the edit too: it went down every path that it should.
    """
    sites = all_sites(model)
    plain = observe(model, ids)
    for rank, site in enumerate(sites):
        wanted = plain.sites[site] + _noise_like(plain.sites[site])
        seen = observe(model, ids, edits=[(site, _put(wanted))])
        _require_equal(model, str(site), seen.sites[site], wanted)
        check_residual_sums(model, seen, edited=site)
        for earlier in sites[:rank]:
            if model.point(earlier) != model.point(site):
                _require_equal(model, str(earlier), seen.sites[earlier], plain.sites[earlier])
        if torch.equal(seen.logits, plain.logits):
            raise _disagreement(model, str(site), "an edit does not reach the logits")


def check_early_exit(model: LanguageModel, ids: Int[Tensor, "B S"]) -> None:
    """Reading one site gives the value of a full forward, and runs nothing after that site."""
    sites = all_sites(model)
    plain = observe(model, ids)
    for rank, site in enumerate(sites):
        point = model.point(site)
        later = [
            each
            for each in map(model.point, sites[rank + 1 :])
            if (each.path, each.side) != (point.path, point.side)
        ]
        reached: list[TapPoint] = []
        with model.tapped([_note(each, reached) for each in later]):
            value = model.activations(ids, [site])[site]
        _require_equal(model, str(site), value, plain.sites[site])
        if reached:
            raise _disagreement(model, str(site), f"reading it goes on to run {reached[0]}")


def check_padding(model: LanguageModel, ids: Int[Tensor, "1 S"]) -> None:
    """Padded on the left or on the right, a row has the logits that it has alone."""
    row = ids[0]
    alone = model.logits(ids)[0]
    padding = row.new_full((3,), model.special_tokens.pad or 0)
    for side, parts in (("left", [padding, row]), ("right", [row, padding])):
        padded = torch.cat(parts)[None]
        real = torch.ones_like(padded, dtype=torch.bool)
        real[:, : len(padding)] = side == "right"
        real[:, len(row) :] &= side == "left"
        logits = model.logits(padded, real)[real]
        _require_close(model, f"logits with padding on the {side}", logits, alone)


def check_hooks_removed(model: LanguageModel, ids: Int[Tensor, "B S"]) -> None:
    """No hook stays, neither after a normal forward nor after one that raises."""
    before = _count_hooks(model)

    def fail(value: Tensor, call: TapCall) -> None:
        raise _InjectedError

    for site in all_sites(model):
        model.activations(ids, [site])
        with suppress(_InjectedError), model.tapped([(site, fail)]):
            model.logits(ids)
        if _count_hooks(model) != before:
            raise _disagreement(model, str(site), "a hook stays on the model after use")


def _check_attention_half(
    model: LanguageModel, seen: Observation, block: BlockLinear, layer: int
) -> None:
    call = seen.calls[block.attention.path]
    where = f"attn_out@{layer}"
    _check_norm(
        model,
        seen,
        block.attn_norm,
        f"attention's input in layer {layer}",
        reads=seen.sites[Site("resid_pre", layer)],
        gives=call.input,
    )
    rebuilt = block.attention.apply(call.input, _pattern(model, block.attention, call, where))
    _require_close(model, f"{where}, rebuilt", rebuilt, call.outputs[0])
    _check_norm(
        model,
        seen,
        block.attn_post_norm,
        where,
        reads=call.outputs[0],
        gives=seen.sites[Site("attn_out", layer)],
    )


def _check_scores(model: LanguageModel, seen: Observation, block: BlockLinear, layer: int) -> None:
    """Queries and keys reproduce the pattern where it is not masked.

    Left out in half precision, where the rounding of large scores moves a softmax at will.
    """
    if model.dtype in _TOLERANCE:
        return
    call = seen.calls[block.attention.path]
    weights, rotation = model.query_key(layer), model.rotation(layer, call.input.shape[1])
    for x, pattern in zip(call.input, call.outputs[1], strict=True):
        scores = weights.capped(weights.scores(x, rotation))
        rebuilt = scores.masked_fill(pattern == 0, -torch.inf).softmax(dim=-1)
        _require_close(model, f"the attention pattern of layer {layer}, rebuilt", rebuilt, pattern)


def _check_mlp_half(
    model: LanguageModel, seen: Observation, block: BlockLinear, layer: int
) -> None:
    assert model.spec is not None
    call = seen.calls[model.spec.block_path(layer, model.spec.mlp)]
    _check_norm(
        model,
        seen,
        block.mlp_norm,
        f"mlp_in@{layer}",
        reads=seen.sites[Site("resid_pre" if block.parallel else "resid_mid", layer)],
        gives=seen.sites[Site("mlp_in", layer)],
    )
    _check_norm(
        model,
        seen,
        block.mlp_post_norm,
        f"mlp_out@{layer}",
        reads=call.outputs[0],
        gives=seen.sites[Site("mlp_out", layer)],
    )


def _check_norm(
    model: LanguageModel,
    seen: Observation,
    norm: NormWeights | None,
    where: str,
    *,
    reads: Tensor,
    gives: Tensor,
) -> None:
    """`gives` is the norm of `reads` (`reads` itself if there is none), at the norm's own path."""
    if norm is None:
        _require_equal(model, where, gives, reads)
        return
    call = seen.calls[norm.path]
    _require_equal(model, f"{where}, the input of {norm.path}", call.input, reads)
    _require_equal(model, f"{where}, the output of {norm.path}", call.outputs[0], gives)
    _require_close(model, f"{where}, rebuilt", norm.apply(reads, norm.scale(reads)), gives)


def _pattern(
    model: LanguageModel, attention: AttentionWeights, call: TapCall, where: str
) -> Tensor:
    """The attention pattern `[B, H, S, S]` of a call: weights of averages over the past."""
    pattern = call.outputs[1] if len(call.outputs) > 1 else None
    batch, length = call.input.shape[:2]
    shape = (batch, attention.n_heads, length, length)
    if not isinstance(pattern, Tensor) or pattern.shape != shape:
        raise _disagreement(model, where, f"{attention.path} gives no pattern of shape {shape}")
    if pattern.triu(1).any():
        raise _disagreement(model, where, f"{attention.path} looks at later positions")
    _require_close(model, where, pattern.sum(-1), torch.ones_like(pattern[..., 0]))
    return pattern


def _put(value: Tensor) -> TapFunction:
    return lambda _value, _call: value


def _note(point: TapPoint, reached: list[TapPoint]) -> tuple[TapPoint, TapFunction]:
    return point, lambda value, call: reached.append(point)


def _count_hooks(model: LanguageModel) -> int:
    return sum(
        len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.module.modules()
    )


def _noise_like(value: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(value.shape, generator=generator).to(value)
    return noise * value.std()


def _require_equal(model: LanguageModel, where: str, value: Tensor, expected: Tensor) -> None:
    if not torch.equal(value, expected):
        difference = (_exact(value) - _exact(expected)).abs().max().item()
        raise _disagreement(model, where, f"differs by {difference:.1e} where it must be equal")


def _require_close(model: LanguageModel, where: str, value: Tensor, expected: Tensor) -> None:
    tolerance = _TOLERANCE.get(model.dtype, _TOLERANCE_OTHERWISE)
    difference = (_exact(value) - _exact(expected)).norm(dim=-1)
    error = (difference / _exact(expected).norm(dim=-1).clamp(min=1e-9)).max().item()
    if not error <= tolerance:
        raise _disagreement(
            model, where, f"relative error {error:.1e}, rounding explains at most {tolerance:.0e}"
        )


def _require_sum(model: LanguageModel, site: Site, value: Tensor, parts: list[Tensor]) -> None:
    """Equal to the sum of the parts up to a few roundings of the numbers that are added."""
    with _misfits(model, str(site)):
        terms = torch.stack([_exact(part).expand(value.shape) for part in parts])
    rounding = 2 * torch.finfo(model.dtype).eps * terms.abs().sum(0)
    excess = ((_exact(value) - terms.sum(0)).abs() - rounding).max().item()
    if not excess <= 0:
        raise _disagreement(
            model, str(site), f"is not the sum of what is added to it (off by {excess:.1e})"
        )


def _exact(value: Tensor) -> Tensor:
    return value.cpu().double()  # not every device computes in double precision


@contextmanager
def _misfits(model: LanguageModel, where: str) -> Iterator[None]:
    """Blame the description for modules and weights that are not there or of another shape."""
    try:
        yield
    except (SiteError, AttributeError, AssertionError, RuntimeError) as error:
        raise _disagreement(model, where, str(error)) from error


def _disagreement(model: LanguageModel, where: str, what: str) -> ConformanceError:
    family = model.spec.family if model.spec else "no family"
    return ConformanceError(
        f"{model.name} does not behave as the family {family!r} is described, at {where}: {what}; "
        "report it with the versions of pellucid and transformers"
    )
