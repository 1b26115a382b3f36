"""Head loadings against a forward account of the same paths, and against heads knocked out."""

import dataclasses

import pytest
import torch

from pellucid.attribution.attention.heads import Sources, head_loadings
from pellucid.attribution.attention.sources import SourceNames
from pellucid.attribution.checks.measure import frozen_taps
from pellucid.attribution.columns import SourceTable
from pellucid.attribution.explain import TopLogits, explained
from pellucid.attribution.linearise import linearise
from pellucid.attribution.sweep import attribution_rows
from pellucid.attribution.targets import concatenate, feature_targets
from pellucid.core.types import Site
from pellucid.models.load import load_model
from pellucid.replacement.local import local_replacement
from support.tiny_dictionaries import BASES, tiny_basis
from support.tiny_models import FAMILIES, tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]
PARALLEL = "gpt_neox"
CASES = [(family, "skip") for family in FAMILIES]
CASES += [("gemma2", basis) for basis in BASES if basis != "skip"]
CASES += [(PARALLEL, basis) for basis in BASES if basis not in ("skip", "clt-mid")]


def linear_model(family, basis):
    model = load_model(tiny_model(family, dtype=torch.float64), word_tokenizer())
    dictionaries, missing = tiny_basis(model, basis)
    return linearise(local_replacement(model, model.encode_ids(PROMPT), dictionaries, missing))


def all_targets(linear):
    last = len(linear.tokens) - 1
    wanted = explained(linear, [TopLogits(max_logits=2, probability_mass=1.0)], last)
    parts = [wanted.targets]
    for layer, local in enumerate(linear.local.layers):
        parts.append(feature_targets(linear, layer, torch.arange(len(local.active))))
    whole = concatenate(parts)
    return whole.select(torch.arange(0, len(whole), 1 + len(whole) // 60))


def all_sources(linear):
    """Every feature, error and token, in the order of the table."""
    names = SourceNames(linear, SourceTable(linear))
    return Sources.of(linear, [names.key(number) for number in range(len(names) - 1)])


def forward_account(linear, sources):
    """Every source's image at every (depth, label) by pushing it up; label None or first head.

    Uses the unfolded weights and norms of the model, not the folded ones of the sweep.
    """
    local, run = linear.local, linear.local.run
    count, length = len(sources.position), len(linear.tokens)
    zeros = torch.zeros(count, length, linear.tokens.shape[1], dtype=torch.float64)
    states = {None: zeros}
    places = {}

    def write(depth):
        if depth in sources.parts:
            chosen, vectors = sources.parts[depth]
            states[None] = states[None].clone()
            states[None][chosen, sources.position[chosen]] += vectors
        places[depth] = dict(states)

    def place(depth):
        """A place in the residual: what an SAE there reads, then what all else does."""
        write(depth)
        if depth + 1 in linear.cuts:
            states.update(dict.fromkeys(states, zeros))
        write(depth + 1)

    def normed(norm, scale, x):
        return x if norm is None else dataclasses.replace(norm, bias=None).apply(x, scale)

    for layer, frozen in enumerate(run.layers):
        place(4 * layer)
        block, attention = frozen.block, frozen.block.attention
        before = dict(states)

        def attend(x, head=None, attention=attention, frozen=frozen, block=block):
            pattern = frozen.pattern.clone()
            if head is not None:
                pattern[[h for h in range(len(pattern)) if h != head]] = 0
            linear_attention = dataclasses.replace(attention, b_v=None, b_o=None)
            read = normed(block.attn_norm, frozen.attn_scale, x)
            out = linear_attention.apply(read, pattern.expand(len(x), -1, -1, -1))
            return normed(block.attn_post_norm, frozen.attn_post_scale, out)

        for label, state in before.items():
            if label is not None:
                states[label] = state + attend(state)
        for head in range(attention.n_heads):
            states[layer, head] = attend(before[None], head)
        if not block.parallel:
            place(4 * layer + 2)
        path = local.layers[layer].path
        if path is not None:
            reads = {label: before.get(label, zeros) for label in states}
            for label, state in (reads if block.parallel else dict(states)).items():
                read = normed(block.mlp_norm, frozen.mlp_scale, state)
                states[label] = states[label] + path.apply(read)
    place(4 * len(run.layers))
    return places


@pytest.mark.parametrize(("family", "basis"), CASES)
def test_the_parts_are_those_of_a_forward_account_and_sum_to_the_edge(family, basis, monkeypatch):
    monkeypatch.setattr("pellucid.attribution.attention.heads.ROWS_AT_ONCE", 37)
    monkeypatch.setattr("pellucid.attribution.attention.heads.MOST_VALUES", 200_000)
    linear = linear_model(family, basis)
    targets, sources = all_targets(linear), all_sources(linear)
    table, count = SourceTable(linear), len(sources.position)
    matrix = torch.zeros(len(targets), table.size, dtype=torch.float64)
    for block in attribution_rows(linear, table, targets):
        matrix[block.rows[:, None], block.columns] = block.weights
    target = torch.arange(len(targets)).repeat_interleave(count)
    source = torch.arange(count).repeat(len(targets))
    split = head_loadings(linear, targets, sources, target, source)
    edges = matrix[:, : table.bias_start].flatten()
    torch.testing.assert_close(split.totals(), edges, rtol=1e-8, atol=1e-9)

    expected = torch.zeros_like(split.heads)
    residual = torch.zeros_like(split.residual)
    places = forward_account(linear, sources)
    for row in range(len(targets)):
        depth, position = int(targets.depth[row]), int(targets.position[row])
        mine = target == row
        for label, state in places[depth].items():
            effect = state[:, position] @ targets.vectors[row]
            if label is None:
                residual[mine] = effect
            else:
                expected[mine, label[0], label[1]] = effect
    torch.testing.assert_close(split.residual, residual, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(split.heads, expected, rtol=1e-8, atol=1e-9)
    passes = split.heads.abs().amax(dim=(0, 2)) > 1e-3
    assert passes.all() or linear.cuts, "a layer's heads pass nothing"
    assert passes.any()


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "qwen3"])
def test_between_which_one_attention_lies_a_head_knocked_out_takes_its_loading_away(family):
    linear = linear_model(family, "plt")
    local, model, length = linear.local, linear.local.run.model, len(linear.tokens)
    layer, position = 2, length - 1  # sources of layer 1, read before layer 2's MLP
    targets = feature_targets(linear, layer, torch.arange(len(local.layers[layer].active)))
    rows = (targets.position == position).nonzero().squeeze(1)
    from_ = local.layers[1].active
    vectors = from_.dictionary.W_dec[from_.features] * from_.activations[:, None]
    count = len(vectors)
    sources = Sources(position=from_.positions, parts={8: (torch.arange(count), vectors)})
    target, source = rows.repeat_interleave(count), torch.arange(count).repeat(len(rows))
    split = head_loadings(linear, targets, sources, target, source)

    def effects(without):
        """Of every source on what layer 2's MLP reads, the module itself running."""
        layers = list(local.run.layers)
        pattern = layers[layer].pattern.clone()
        if without is not None:
            pattern[without] = 0
        layers[layer] = dataclasses.replace(layers[layer], pattern=pattern)
        run = dataclasses.replace(local.run, layers=tuple(layers))
        read = {}

        def add(value, _call):
            changed = value.clone()
            changed[torch.arange(1, count + 1), from_.positions] += vectors
            return changed

        taps = frozen_taps(dataclasses.replace(local, run=run))
        taps.append((Site("mlp_out", 1), add))
        taps.append((Site("mlp_in", layer), lambda value, _: read.update(x=value.clone())))
        with model.tapped(taps):
            model.logits(run.ids.expand(count + 1, -1))
        active = local.layers[layer].active
        encoder = active.dictionary.W_enc[active.features[rows]]
        return ((read["x"][1:, position] - read["x"][:1, position]) @ encoder.T).T

    whole = effects(None)
    torch.testing.assert_close(split.totals().view(len(rows), count), whole, rtol=1e-5, atol=1e-6)
    for head in range(len(local.run.layers[layer].pattern)):
        lost = whole - effects(head)
        loading = split.heads[:, layer, head].view(len(rows), count)
        torch.testing.assert_close(loading, lost, rtol=1e-5, atol=1e-6)
        assert split.heads[:, [0, 1]].abs().max() == 0
