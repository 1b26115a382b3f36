"""Which kernels serve which tensors, and what is refused."""

import inspect
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pellucid.core.errors import ConfigError
from pellucid.kernels import dispatch, reference
from pellucid.kernels.dispatch import IMPLEMENTATIONS, using


def _chosen(*tensors: Any) -> str:
    return dispatch._implementation(*tensors).__name__.rpartition(".")[2]


def _on(device: str, requires_grad: bool = False) -> Any:
    return SimpleNamespace(device=torch.device(device), requires_grad=requires_grad)


def test_the_device_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is made for Linux only")
    assert _chosen(_on("cpu")) == "cpu"
    assert _chosen(_on("cuda"), _on("cuda")) == "triton"
    assert _chosen(_on("mps")) == "reference"
    assert _chosen(_on("cpu"), _on("cuda")) == "reference", "which says what is wrong"
    assert _chosen(_on("cuda:0"), _on("cuda:1")) == "reference"
    monkeypatch.setattr(dispatch, "_has_triton", lambda: False)
    assert _chosen(_on("cuda")) == "reference"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_autograd_tracks_gets_the_definition(device: str) -> None:
    assert _chosen(_on(device), _on(device, requires_grad=True)) == "reference"
    with torch.no_grad():
        assert _chosen(_on(device, requires_grad=True)) != "reference"


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_one_may_be_asked_for_and_only_within_the_block(name: str) -> None:
    with using(name):
        assert _chosen(_on("cpu")) == name
        with using("reference"):
            assert _chosen(_on("cpu")) == "reference"
        assert _chosen(_on("cpu")) == name
    assert _chosen(_on("cpu")) == "cpu"
    with pytest.raises(KeyError), using("reference"):
        raise KeyError
    assert _chosen(_on("cpu")) == "cpu"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="no kernels are named 'cuda'; use one of reference, cpu"):
        using("cuda").__enter__()


def test_asking_for_what_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_has_triton", lambda: False)
    with pytest.raises(ConfigError, match=r"3\.4 or later is installed; pip install"):
        using("triton").__enter__()


@pytest.mark.parametrize(
    ("version", "served"),
    [("3.3.1", False), ("3.4.0", True), ("3.10.0+git1a2b", True), (None, False)],
)
def test_an_old_triton_is_as_good_as_none(
    version: str | None, served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installed(name: str) -> str:
        if version is None:
            raise dispatch.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(dispatch.metadata, "version", installed)
    assert dispatch._has_triton.__wrapped__() is served


@pytest.mark.parametrize("name", ["cpu", "triton"])
def test_fast_kernels_refuse_what_autograd_tracks(name: str) -> None:
    pytest.importorskip("triton", reason="Triton is made for Linux only")
    weight = torch.ones(4, 2, requires_grad=True)
    with using(name), pytest.raises(ConfigError, match="only the reference is differentiable"):
        dispatch.decode(torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64), weight)


def test_kernels_refuse_tensors_of_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is made for Linux only")
    monkeypatch.setattr(import_module("pellucid.kernels.triton"), "INTERPRETED", False)
    with using("cpu"), pytest.raises(ConfigError, match=r"are on meta; they serve cpu tensors$"):
        dispatch.relu_topk(torch.ones(1, 1, device="meta"), 1)
    message = (
        "the tensors are on cpu; they serve cuda tensors, or CPU tensors with TRITON_INTERPRET"
    )
    with using("triton"), pytest.raises(ConfigError, match=message):
        dispatch.relu_topk(torch.ones(1, 1), 1)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_implementation_has_every_kernel(name: str) -> None:
    if name == "triton":
        pytest.importorskip("triton", reason="Triton is made for Linux only")
    module = import_module(f"pellucid.kernels.{name}")
    for kernel in ("relu_topk", "linear_relu_topk", "decode", "row_gradients"):
        of_definition = inspect.signature(getattr(reference, kernel))
        assert len(inspect.signature(getattr(module, kernel)).parameters) == len(
            of_definition.parameters
        )
