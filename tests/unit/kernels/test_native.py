import pytest
import torch

from pellucid.kernels.native import multiplies_bfloat16
from pellucid.training import TrainConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx2": True}, False),
        ({}, False),
    ],
)
def test_what_a_processor_says_it_has_decides(
    capabilities: dict[str, object], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert multiplies_bfloat16(CPU) is native
    decided = TrainConfig().decided(CPU)
    assert decided.precision == ("bfloat16" if native else "float32")
    assert TrainConfig(precision="float32").decided(CPU).precision == "float32"


def test_a_torch_that_does_not_say_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not multiplies_bfloat16(CPU)
    assert not multiplies_bfloat16(torch.device("meta"))
