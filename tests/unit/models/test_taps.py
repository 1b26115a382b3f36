import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pellucid.core.errors import SiteError
from pellucid.models.taps import TapCall, TapPoint, capture, submodule, tapped


class Double(nn.Module):
    """Doubles `hidden_states`; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, hidden_states: Tensor) -> Tensor:
        self.calls += 1
        return 2 * hidden_states


class Pair(nn.Module):
    """Returns None, a tensor and its own input."""

    def forward(self, scale: float, x: Tensor) -> tuple[None, Tensor, Tensor]:
        return None, scale * x, x


class Block(nn.Module):
    """x + 2x, the doubler called by position or by keyword."""

    def __init__(self, by_keyword: bool) -> None:
        super().__init__()
        self.doubler = Double()
        self.by_keyword = by_keyword

    def forward(self, x: Tensor) -> Tensor:
        residual = x + 0
        y = self.doubler(hidden_states=residual) if self.by_keyword else self.doubler(residual)
        return residual + y


def hooks_on(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def add(amount: float) -> Any:
    return lambda value, call: value + amount


ONE = torch.ones(1, 2)


@pytest.mark.parametrize("by_keyword", [False, True])
def test_input_edit_reaches_the_module_only(by_keyword: bool) -> None:
    block = Block(by_keyword)
    with tapped(block, [(TapPoint("doubler", "input"), add(1.0))]):
        assert torch.equal(block(ONE), ONE + 2 * (ONE + 1))
    assert torch.equal(block(ONE), 3 * ONE)


@pytest.mark.parametrize("by_keyword", [False, True])
def test_in_place_edit_reaches_the_residual_branch_too(by_keyword: bool) -> None:
    block = Block(by_keyword)
    with tapped(block, [(TapPoint("doubler", "input", in_place=True), add(1.0))]):
        assert torch.equal(block(ONE), 3 * (ONE + 1))


def test_in_place_edit_does_not_reach_back_into_what_was_kept() -> None:
    block, kept = Block(False), []
    point = TapPoint("doubler", "input", in_place=True)
    with tapped(block, [(point, lambda value, call: kept.append(value)), (point, add(1.0))]):
        block(ONE)
    assert torch.equal(kept[0], ONE)


def test_in_place_points_come_before_the_other_inputs_of_their_module() -> None:
    block = Block(False)
    taps = [
        (TapPoint("doubler", "input"), add(10.0)),
        (TapPoint("doubler", "input", in_place=True), add(1.0)),
    ]
    with tapped(block, taps):
        assert torch.equal(block(ONE), (ONE + 1) + 2 * (ONE + 11))


def test_in_place_edit_is_differentiable() -> None:
    block = Block(False)
    delta = torch.ones(1, 2, requires_grad=True)
    point = TapPoint("doubler", "input", in_place=True)
    with tapped(block, [(point, lambda value, call: value + delta)]):
        block(ONE).sum().backward()
    assert torch.equal(delta.grad, torch.full((1, 2), 3.0))


def test_output_edit_of_a_tensor() -> None:
    block = Block(True)
    with tapped(block, [(TapPoint("doubler", "output"), add(1.0))]):
        assert torch.equal(block(ONE), 4 * ONE)


def test_output_edit_of_a_tuple_replaces_its_first_tensor() -> None:
    pair, calls = Pair(), []

    def edit(value: Tensor, call: TapCall) -> Tensor:
        calls.append(call)
        return value + 1

    with tapped(pair, [(TapPoint("", "output"), edit)]):
        first, second, third = pair(3.0, ONE)

    assert first is None
    assert torch.equal(second, 4 * ONE)
    assert third is ONE
    assert calls[0].input is ONE
    assert len(calls[0].outputs) == 3
    assert torch.equal(calls[0].outputs[1], 3 * ONE)


def test_an_input_tap_sees_no_outputs() -> None:
    seen: list[TapCall] = []
    block = Block(False)
    with tapped(block, [(TapPoint("", "input"), lambda value, call: seen.append(call))]):
        block(ONE)
    assert seen[0].input is ONE
    assert seen[0].outputs == ()


@pytest.mark.parametrize("side", ["input", "output"])
def test_taps_on_one_point_run_in_order_and_see_each_other(side: Any) -> None:
    block, point = Block(False), TapPoint("", side)
    seen: list[float] = []

    def see(value: Tensor, call: TapCall) -> None:
        seen.append(value[0, 0].item())

    with (
        tapped(block, [(point, see), (point, add(1.0)), (point, see)]),
        tapped(block, [(point, add(1.0)), (point, see)]),
    ):
        block(ONE)
    start = 1.0 if side == "input" else 3.0
    assert seen == [start, start + 1, start + 2]


def test_a_zero_edit_is_bit_exact_and_none_leaves_the_very_tensor() -> None:
    block, x = Block(False), torch.randn(5, 2)
    plain = block(x)
    for edit in (lambda v, c: None, lambda v, c: v.clone(), add(0.0)):
        for point in (TapPoint("doubler", "input", in_place=True), TapPoint("doubler", "output")):
            with tapped(block, [(point, edit)]):
                assert torch.equal(block(x), plain)


def test_an_edit_is_cast_to_the_dtype_of_its_place() -> None:
    block = Block(False)
    with tapped(block, [(TapPoint("doubler", "output"), lambda v, c: v.double() + 1)]):
        assert block(ONE).dtype == torch.float32


@pytest.mark.parametrize("side", ["input", "output"])
def test_an_edit_of_another_shape_is_refused(side: Any) -> None:
    block = Block(False)
    point = TapPoint("doubler", side)
    with (
        tapped(block, [(point, lambda v, c: v[:, :1])]),
        pytest.raises(SiteError, match=rf"edit at doubler:{side} returned shape \(1, 1\)"),
    ):
        block(ONE)


def test_hooks_are_gone_after_the_context_an_exception_and_a_bad_path() -> None:
    block, point = Block(False), TapPoint("doubler", "input")
    with tapped(block, [(point, add(1.0))]):
        assert hooks_on(block) == 1
    assert hooks_on(block) == 0

    def fail(value: Tensor, call: TapCall) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), tapped(block, [(point, fail)]):
        block(ONE)
    assert hooks_on(block) == 0

    bad = TapPoint("duobler", "input")
    with (
        pytest.raises(SiteError, match="no module at 'duobler'; the closest is 'doubler'"),
        tapped(block, [(point, add(1.0)), (bad, add(1.0))]),
    ):
        pass
    assert hooks_on(block) == 0


def test_a_module_called_without_a_tensor_or_returning_none_is_explained() -> None:
    class Silent(nn.Module):
        def forward(self, x: Any) -> None: ...

    silent = Silent()
    with (
        tapped(silent, [(TapPoint("", "input"), add(1.0))]),
        pytest.raises(SiteError, match="called without a tensor"),
    ):
        silent("text")
    with (
        tapped(silent, [(TapPoint("", "output"), add(1.0))]),
        pytest.raises(SiteError, match="gives NoneType, not a tensor"),
    ):
        silent(ONE)


class TestCapture:
    def chain(self) -> nn.Sequential:
        return nn.Sequential(Double(), Double(), Double())

    def test_stops_after_the_last_point(self) -> None:
        chain = self.chain()
        points = [TapPoint("1", "output"), TapPoint("0", "input")]
        values = capture(chain, points, lambda: chain(ONE))
        assert torch.equal(values[points[0]], 4 * ONE)
        assert torch.equal(values[points[1]], ONE)
        assert [module.calls for module in chain] == [1, 1, 0]
        assert hooks_on(chain) == 0

    def test_two_points_of_one_place_and_a_repeated_point(self) -> None:
        chain = self.chain()
        plain, in_place = TapPoint("1", "input"), TapPoint("1", "input", in_place=True)
        values = capture(chain, [plain, in_place, plain], lambda: chain(ONE))
        assert set(values) == {plain, in_place}
        assert all(torch.equal(value, 2 * ONE) for value in values.values())

    def test_sees_what_an_outer_edit_left(self) -> None:
        chain, point = self.chain(), TapPoint("0", "output")
        with tapped(chain, [(point, add(1.0))]):
            assert torch.equal(capture(chain, [point], lambda: chain(ONE))[point], 2 * ONE + 1)

    def test_keeps_the_first_call_of_a_module_that_is_called_twice(self) -> None:
        root = nn.ModuleDict({"first": Double(), "last": Double()})
        first, last = TapPoint("first", "output"), TapPoint("last", "output")

        def run() -> None:
            root["last"](root["first"](root["first"](ONE)))

        assert torch.equal(capture(root, [first, last], run)[first], 2 * ONE)

    def test_a_point_that_is_never_reached_is_named(self) -> None:
        chain = self.chain()
        with pytest.raises(SiteError, match="never reached 2:output"):
            capture(chain, [TapPoint("2", "output")], lambda: chain[0](ONE))
        assert hooks_on(chain) == 0

    def test_other_exceptions_come_through(self) -> None:
        chain = self.chain()
        with pytest.raises(ZeroDivisionError):
            capture(chain, [TapPoint("0", "input")], lambda: 1 / 0)

    def test_no_point_needs_no_forward_result(self) -> None:
        assert capture(self.chain(), [], lambda: None) == {}


def test_taps_keep_nothing_alive() -> None:
    block = Block(False)
    with tapped(block, [(TapPoint("doubler", "input"), add(1.0))]):
        block(ONE)
    gone = weakref.ref(block)
    del block
    gc.collect()
    assert gone() is None


def test_submodule_of_the_root_and_of_a_list() -> None:
    root = nn.ModuleDict({"layers": nn.ModuleList([Double(), Double()])})
    assert submodule(root, "") is root
    assert submodule(root, "layers.1") is root["layers"][1]
    with pytest.raises(SiteError, match=r"closest is 'layers\.1'"):
        submodule(root, "layers.2")
