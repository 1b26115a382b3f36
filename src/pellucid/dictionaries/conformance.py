"""The contract of every dictionary, as a check that anyone can run on theirs."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.core.types import SparseCodes
from pellucid.dictionaries.activations import KLargest, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.checkpoint import load_dictionaries, save_dictionaries

# Sums of the same numbers in another order, relative to the largest.
_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def check_dictionary(dictionary: Dictionary, *, tokens: int = 16, seed: int = 0) -> None:
    """Check that a dictionary does what every other part of the package relies on.

    Runs it on random inputs of its own scale; its parameters are left alone.

    Args:
        dictionary: what to check.
        tokens: rows of input.
        seed: of the inputs.

    Raises:
        DictionaryError: names the first property that does not hold.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, dictionary.d_in, generator=generator)
    x = x.to(dictionary.W_enc.device, dictionary.W_enc.dtype)
    checks: list[Callable[[Dictionary, Tensor], None]] = [
        _check_codes,
        _check_activation,
        _check_decode,
        _check_forward,
        _check_rows,
        _check_batching,
        _check_dtype,
        _check_saving,
    ]
    for check in checks:
        check(dictionary, x)


def _demand(holds: bool | Tensor, dictionary: Dictionary, what: str) -> None:
    if not holds:
        raise DictionaryError(
            f"the {dictionary.kind} at {dictionary.read_site} breaks the contract: {what}; fix its "
            "parameters or its class"
        )


def _close(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> bool:
    scale = max(1.0, float(b.abs().max()) if b.numel() else 1.0)
    return torch.allclose(a, b, rtol=0, atol=_TOLERANCE[a.dtype] * scale)


def _check_codes(dictionary: Dictionary, x: Tensor) -> None:
    codes = dictionary.encode(x)
    _demand(codes.num_features == dictionary.num_features, dictionary, "codes count its features")
    _demand(codes.values.shape == codes.indices.shape, dictionary, "a value has an index")
    _demand(len(codes.values) == len(x), dictionary, "a row of codes a row of input")
    _demand(codes.values.isfinite().all(), dictionary, "activations are finite")
    valid = (codes.indices >= 0) & (codes.indices < dictionary.num_features)
    _demand(valid.all(), dictionary, "indices are those of features")
    active = SparseCodes((codes.values != 0).to(x.dtype), codes.indices, codes.num_features)
    _demand(active.dense().max() <= 1, dictionary, "a feature is active once a row")


def _check_activation(dictionary: Dictionary, x: Tensor) -> None:
    pre, dense = dictionary.pre_activations(x), dictionary.encode(x).dense()
    active = dense != 0
    _demand(_close(dense[active], pre[active]), dictionary, "an activation is its pre-activation")
    if isinstance(dictionary.activation, KLargest):
        k = dictionary.activation.k
        _demand((active.sum(dim=1) <= k).all(), dictionary, f"at most {k} features are active")
        kept = torch.topk(pre, k, dim=1).values
        if isinstance(dictionary.activation, TopK):
            kept = kept.clamp_min(0)
        _demand(_close(dense.sum(dim=1), kept.sum(dim=1)), dictionary, f"the {k} largest are kept")


def _check_decode(dictionary: Dictionary, x: Tensor) -> None:
    codes = dictionary.encode(x)
    for slot in range(len(dictionary.write_sites)):
        expected = codes.dense() @ dictionary.decoder(slot)
        expected = expected + dictionary.b_dec if slot == 0 else expected
        written = dictionary.decode(codes, slot)
        _demand(_close(written, expected), dictionary, "decoding is linear in codes")


def _check_forward(dictionary: Dictionary, x: Tensor) -> None:
    expected = dictionary.decode(dictionary.encode(x))
    linear = dictionary.skip(x)
    _demand((linear is None) == (dictionary.W_skip is None), dictionary, "skip() follows W_skip")
    if linear is not None:
        expected = expected + linear
    _demand(_close(dictionary(x), expected), dictionary, "forward is decode(encode) plus skip")


def _check_rows(dictionary: Dictionary, x: Tensor) -> None:
    features = torch.arange(0, dictionary.num_features, 2, device=x.device)
    rows = dictionary.encoder_rows(features)
    pre = dictionary.encoder_input(x) @ rows.T + dictionary.b_enc[features]
    _demand(
        _close(pre, dictionary.pre_activations(x)[:, features]),
        dictionary,
        "encoder_rows are what pre-activations are products with",
    )
    one = SparseCodes(x.new_ones(len(features), 1), features[:, None], dictionary.num_features)
    for slot in range(len(dictionary.write_sites)):
        written = dictionary.decode(one, slot) - (dictionary.b_dec if slot == 0 else 0)
        _demand(
            _close(written, dictionary.decoder_rows(features, slot)),
            dictionary,
            "decoder_rows are what one feature at activation 1 writes",
        )


def _check_batching(dictionary: Dictionary, x: Tensor) -> None:
    half = len(x) // 2
    apart = torch.cat([dictionary(x[:half]), dictionary(x[half:])])
    _demand(_close(dictionary(x), apart), dictionary, "rows do not see each other")
    nothing = dictionary(x[:0])
    _demand(nothing.shape == (0, dictionary.d_out), dictionary, "no rows give no rows")


def _check_dtype(dictionary: Dictionary, x: Tensor) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        output = dictionary(x.to(dtype))
        _demand(output.dtype == dictionary.W_dec.dtype, dictionary, "its dtype is the result's")


def _check_saving(dictionary: Dictionary, x: Tensor) -> None:
    dtype = dictionary.W_enc.dtype
    with tempfile.TemporaryDirectory() as folder:
        save_dictionaries(Path(folder) / "set", {0: dictionary}, dtype=dtype)
        loaded = load_dictionaries(Path(folder) / "set", device=x.device, dtype=dtype)[0]
    _demand(type(loaded) is type(dictionary), dictionary, "its kind survives saving")
    sites = (loaded.read_site, loaded.write_site)
    _demand(
        sites == (dictionary.read_site, dictionary.write_site), dictionary, "sites survive saving"
    )
    before, after = dictionary.tensors(), loaded.tensors()
    same = before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    _demand(same, dictionary, "saving changes no tensor")
    _demand(_close(loaded(x), dictionary(x)), dictionary, "saving changes no output")
