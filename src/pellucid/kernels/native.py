"""What a device computes natively."""

from collections.abc import Mapping

import torch

_PROCESSOR_HAS = ("avx512_bf16", "amx_bf16")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for matrix products of bfloat16.

    Without them such a product is emulated, and slower than that of float32. A processor of which
    torch does not say is taken to have none.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9
        return any(bool(found.get(name)) for name in _PROCESSOR_HAS)
    return False
