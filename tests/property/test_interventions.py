"""Where-clauses select what a reading of their definition selects; interventions survive JSON."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import InterventionError
from pellucid.core.places import FeatureSite, HeadSite, parse_place
from pellucid.core.types import SITE_KINDS, Site
from pellucid.interventions.operations import (
    Add,
    Clamp,
    Operation,
    PatchFrom,
    ProjectOut,
    Scale,
    Set,
)
from pellucid.interventions.spec import Gate, Intervention, content_hash, read_interventions
from pellucid.interventions.where import Where

PROMPT, LENGTH = 6, 10
OCCURRENCES = {"w5": [(1, 2), (4, 5)], "w6 w7": [(2, 4)]}

inside = st.integers(-PROMPT, LENGTH - 1)


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int | None]:
    start = draw(st.integers(0, LENGTH - 1))
    stop = draw(st.none() | st.integers(start + 1, LENGTH))
    # The same ends, counted from the prompt's end where that can be said.
    if start < PROMPT and draw(st.booleans()):
        start -= PROMPT
    if stop is not None and stop < PROMPT and draw(st.booleans()):
        stop -= PROMPT
    return start, stop


@st.composite
def generated_windows(draw: st.DrawFn) -> tuple[int, int | None]:
    start = draw(st.integers(0, 5))
    return start, draw(st.none() | st.integers(start + 1, 6))


def wheres(depth: int = 1) -> st.SearchStrategy[Where]:
    """Where-clauses over a prompt of PROMPT tokens in a run of at most LENGTH."""
    return st.builds(
        Where,
        positions=st.lists(inside, max_size=3).map(tuple),
        windows=st.lists(windows(), max_size=2).map(tuple),
        spans=st.lists(st.sampled_from(sorted(OCCURRENCES)), max_size=2).map(tuple),
        prompt=st.booleans(),
        generated=st.none() | generated_windows(),
        exclude=st.none() | wheres(depth - 1) if depth else st.none(),
    )


def selected(where: Where, position: int, *, opener: bool) -> bool:
    """Whether a position is selected, read off the definition clause by clause."""

    def absolute(each: int) -> int:
        return each + PROMPT if each < 0 else each

    clauses = [position == absolute(each) for each in where.positions]
    for start, stop in where.windows:
        end = LENGTH if stop is None else absolute(stop)
        clauses.append(absolute(start) <= position < end)
    for text in where.spans:
        clauses += [start <= position < stop for start, stop in OCCURRENCES[text]]
    if where.prompt:
        clauses.append(position < PROMPT and not (opener and position == 0))
    if where.generated is not None:
        start, stop = where.generated
        clauses.append(position - PROMPT >= start and (stop is None or position - PROMPT < stop))
    nothing_said = not (where.positions or where.windows or where.spans or where.prompt)
    if nothing_said and where.generated is None:
        clauses = [not (opener and position == 0)]
    excluded = where.exclude is not None and selected(where.exclude, position, opener=opener)
    return any(clauses) and not excluded


@settings(deadline=None)
@given(where=wheres(), opener=st.booleans())
def test_where_selects_what_its_clauses_say(where: Where, opener: bool) -> None:
    chosen = where.resolve(PROMPT, LENGTH, opener=opener, spans=OCCURRENCES.__getitem__)

    expected = [selected(where, position, opener=opener) for position in range(LENGTH)]
    assert np.array_equal(chosen, expected)


@settings(deadline=None)
@given(where=wheres())
def test_where_survives_json(where: Where) -> None:
    assert Where.from_json(json.loads(json.dumps(where.to_json()))) == where


@given(position=st.integers(-40, 40).filter(lambda each: not -PROMPT <= each < LENGTH))
def test_a_position_outside_the_run_is_refused(position: int) -> None:
    with pytest.raises(InterventionError, match=f"position {position} is beyond the 10 tokens"):
        Where(positions=(position,)).resolve(
            PROMPT, LENGTH, opener=True, spans=OCCURRENCES.__getitem__
        )


numbers = st.floats(-1e6, 1e6, width=32)
vectors = st.lists(numbers, min_size=3, max_size=3).map(torch.tensor)
directions = vectors.filter(lambda vector: bool(vector.norm() > 0))
feature_ops: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Clamp, value=numbers),
    st.builds(Add, strength=numbers),
    st.builds(Scale, factor=numbers),
    st.builds(Set, value=numbers),
)
ops: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Add, vector=vectors, strength=numbers),
    st.builds(Set, value=vectors | numbers),
    st.builds(Scale, factor=numbers),
    st.builds(ProjectOut, directions=st.lists(directions, min_size=1, max_size=2).map(torch.stack)),
    st.builds(
        PatchFrom,
        ids=st.lists(st.integers(0, 66), min_size=1, max_size=4).map(tuple),
        positions=st.none() | st.just((1, 2)),
    ),
)
layers = st.integers(0, 40)
residual_sites = st.builds(
    Site, kind=st.sampled_from([k for k in SITE_KINDS if k != "embed"]), layer=layers
)
head_sites = st.builds(
    HeadSite, kind=st.sampled_from("qkvz"), layer=layers, head=st.none() | st.integers(0, 15)
)
feature_sites = st.builds(FeatureSite, layer=layers, feature=st.integers(0, 10**6))
gates = st.builds(
    Gate,
    site=residual_sites | feature_sites,
    vector=st.none() | vectors,
    threshold=numbers,
    bias=numbers,
    measure=st.sampled_from(["dot", "cosine"]),
    over=wheres(0),
    reduce=st.sampled_from(["here", "max", "mean"]),
    above=st.booleans(),
)
interventions = st.one_of(
    st.builds(
        Intervention,
        site=sites,
        op=some_ops,
        where=wheres(),
        rows=st.none() | st.lists(st.integers(0, 9), min_size=1, unique=True).map(tuple),
        gate=st.none() | gates,
    )
    for sites, some_ops in ((residual_sites | head_sites, ops), (feature_sites, feature_ops))
)


@settings(deadline=None)
@given(declared=interventions)
def test_interventions_survive_json_with_their_hash(declared: Intervention) -> None:
    record = json.loads(json.dumps(declared.to_json()))
    (again,) = read_interventions(json.dumps([record]))

    assert again.to_json() == record
    assert again.hash == declared.hash
    assert again.site == declared.site


@settings(deadline=None)
@given(declared=st.lists(interventions, min_size=2, max_size=3, unique_by=lambda each: each.hash))
def test_hashes_tell_interventions_and_their_order_apart(declared: list[Intervention]) -> None:
    assert len({each.hash for each in declared}) == len(declared)
    assert content_hash(declared) != content_hash(declared[::-1])


@given(place=residual_sites | head_sites | feature_sites)
def test_places_read_back_what_they_print(place: Site | HeadSite | FeatureSite) -> None:
    assert parse_place(str(place)) == place
    kind, _, rest = str(place).partition("@")
    layer, bracket, index = rest.partition("[")
    spelled = f"blocks.{layer}.{'attn.' if kind in 'qkvz' else ''}{kind}{bracket}{index}"
    assert parse_place(spelled) == place
