"""The Pareto front against its definition, point by point."""

from hypothesis import given
from hypothesis import strategies as st

from pellucid.training.sweep import Point, SweepRow, pareto_front, points

FEW = st.integers(0, 5).map(float)


def point(l0: float, value: float) -> Point:
    return Point(
        names=("a",),
        kind="sae",
        activation="topk",
        features=8,
        k=2,
        l0=l0,
        value=value,
        l0_range=(l0, l0),
        value_range=(value, value),
    )


def beats(a: Point, b: Point) -> bool:
    return a.l0 <= b.l0 and a.value <= b.value and (a.l0, a.value) != (b.l0, b.value)


@given(st.lists(st.tuples(FEW, FEW), max_size=12))
def test_the_front_is_what_no_other_point_beats(pairs: list[tuple[float, float]]) -> None:
    every = [point(*pair) for pair in pairs]
    expected = [p for p in every if not any(beats(other, p) for other in every)]
    found = pareto_front(every)
    assert sorted((p.l0, p.value) for p in found) == sorted((p.l0, p.value) for p in expected)


@given(st.lists(FEW, min_size=1, max_size=4))
def test_seeds_are_one_point_with_their_range(values: list[float]) -> None:
    rows = [
        SweepRow(
            name=str(seed),
            kind="sae",
            activation="topk",
            features=8,
            k=2,
            seed=seed,
            target="resid_post",
            fvu=value,
            l0=2.0,
            dead=0.0,
            ce=None,
            kl=None,
            top1=None,
            seconds=1.0,
        )
        for seed, value in enumerate(values)
    ]
    (found,) = points(rows, "resid_post", "fvu")
    assert found.value_range == (min(values), max(values))
    assert found.value_range[0] - 1e-9 <= found.value <= found.value_range[1] + 1e-9
    assert points(rows, "resid_post", "kl") == [] == points(rows, "mlp_out", "fvu")
