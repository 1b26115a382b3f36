"""Launches of Triton kernels recorded and compiled for a GPU that need not be there."""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

_POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
}
_OPTIONS = ("num_warps", "num_stages")


@dataclass(slots=True)
class Launches:
    """Stands in for a kernel and remembers what it was launched with."""

    kernel: Any
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *arguments, **named: self.calls.append((arguments, named))

    def compiled(self, capability: int, **more: Any) -> Iterator[Any]:
        """Each launch compiled as on a GPU of that compute capability (80, 90)."""
        for arguments, named in self.calls:
            named = named | more
            options = {name: named.pop(name) for name in _OPTIONS if name in named}
            values = dict(zip(self.kernel.arg_names, arguments, strict=False)) | named
            constants = {
                name: value
                for name, value in values.items()
                if name in named or (isinstance(value, int) and value == 1)
            }
            signature = {name: _type(name, values, constants) for name in self.kernel.arg_names}
            aligned = [
                index
                for index, name in enumerate(self.kernel.arg_names)
                if name not in constants
                and (isinstance(values[name], torch.Tensor) or values[name] % 16 == 0)
            ]
            source = ASTSource(
                self.kernel,
                signature=signature,
                constexprs={(self.kernel.arg_names.index(n),): v for n, v in constants.items()},
                attrs={(index,): [["tt.divisibility", 16]] for index in aligned},
            )
            target = GPUTarget("cuda", capability, 32)
            yield triton.compile(source, target=target, options=options)


def _type(name: str, values: dict[str, Any], constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    value = values[name]
    return _POINTERS[value.dtype] if isinstance(value, torch.Tensor) else "i32"


@contextmanager
def recorded(monkeypatch: Any, module: Any, name: str) -> Iterator[Launches]:
    """The launches of a module's kernel within the block, none of which happens."""
    launches = Launches(getattr(module, name))
    with monkeypatch.context() as patched:
        patched.setattr(module, name, launches)
        yield launches


def resources(compiled: Any) -> dict[str, int]:
    """Registers a thread and bytes of its stack (0: nothing spilled), as the binary says."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", text))
    return {"registers": int(found["REG"]), "stack": int(found["STACK"])}
