"""Small dense training of transcoders and cross-layer transcoders, side by side.

All layers at once with dense Adam; the loss of N tokens is

    sum over layers of |y - y_hat|^2 / var(y)  +  sparsity * sum over features of a |W_dec|

with |W_dec| the norm of all that a feature writes (Ameisen et al. 2025; L1 in place of tanh), or
without the second term when k features are kept by TopK. A transcoder's features write to their own
layer, a cross-layer transcoder's to that and every later one. Nothing else differs. After L1
training the encoders stay and the decoders are fitted once more without it, because L1 shrinks
activations, and a hop that reads shrunk values writes nothing.
Suffixes: N tokens, L layers, F features, M layers written to, d width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.ground_truth.basis import Basis, Encoder
from pellucid.core.types import Site
from pellucid.dictionaries.activations import ReLU, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.transcoder import Transcoder

SMALLEST_SQUARE = 1e-10
REFIT_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How to train.

    Attributes:
        features: per layer.
        cross_layer: features write to later layers too.
        sparsity: weight of the L1 term; 0 with TopK.
        k: features kept a token; None for ReLU.
        steps, batch, rate: of Adam; a batch of None is all tokens. The rate falls to zero.
        seed: of weights and batches.
    """

    features: int
    cross_layer: bool
    sparsity: float = 0.0
    k: int | None = None
    steps: int = 2000
    batch: int | None = None
    rate: float = 2e-3
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Trained tensors in the units of the model.

    Attributes:
        w_enc, b_enc: by layer.
        w_dec: by layer and layer written to.
        b_dec: by layer.
        k: features kept a token, None for ReLU.
    """

    w_enc: tuple[Float[Tensor, "F d"], ...]
    b_enc: tuple[Float[Tensor, " F"], ...]
    w_dec: dict[tuple[int, int], Float[Tensor, "F d"]]
    b_dec: tuple[Float[Tensor, " d"], ...]
    k: int | None

    def encoder(self, layer: int) -> Encoder:
        """From inputs [..., d] to dense activations [..., F]."""

        def encode(x: Tensor) -> Tensor:
            return _activate(x @ self.w_enc[layer].T + self.b_enc[layer], self.k)

        return encode

    def basis(self, name: str) -> Basis:
        """As a basis, and as dictionaries that `pellucid.trace` takes."""
        layers = range(len(self.b_dec))
        return Basis(
            name=name,
            encoders=tuple(self.encoder(layer) for layer in layers),
            rows=self.w_enc,
            biases=self.b_enc,
            decoders=self.w_dec,
            constants=self.b_dec,
            dictionaries=DictionarySet(name, {n: self._dictionary(n) for n in layers}),
        )

    def _dictionary(self, layer: int) -> Dictionary:
        targets = [target for source, target in sorted(self.w_dec) if source == layer]
        is_cross_layer = any(source != target for source, target in self.w_dec)
        w_dec = torch.stack([self.w_dec[layer, target] for target in targets], dim=1)
        kind = CrossLayerTranscoder if is_cross_layer else Transcoder
        return kind(
            W_enc=self.w_enc[layer],
            b_enc=self.b_enc[layer],
            W_dec=w_dec if is_cross_layer else w_dec[:, 0],
            b_dec=self.b_dec[layer],
            activation=ReLU() if self.k is None else TopK(self.k),
            read_site=Site("mlp_in", layer),
            write_site=Site("mlp_out", layer),
        )


def fit(
    x_NLd: Float[Tensor, "N L d"],
    y_NLd: Float[Tensor, "N L d"],
    settings: FitSettings,
    start: Basis | None = None,
) -> Fitted:
    """Train on MLP inputs x and outputs y of the same tokens at every layer.

    Args:
        x_NLd, y_NLd: the tokens.
        settings: see there.
        start: a basis whose features the first ones begin as, instead of at random; the features
            beyond its number, and decoders that it lacks, begin as without it.
    """
    x_scale = x_NLd.square().sum(-1).mean(0).sqrt()[:, None]
    b_dec = y_NLd.mean(0)
    y_scale = (y_NLd - b_dec).square().sum(-1).mean(0).sqrt()[:, None]
    model = _Model(x_NLd.shape[1], x_NLd.shape[2], settings)
    if start is not None:
        model.begin_as(start, x_scale, y_scale, b_dec)
    x, y = x_NLd / x_scale, (y_NLd - b_dec) / y_scale
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.rate, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(settings.seed)
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * min(1.0, 2 * (1 - step / settings.steps))
        refitting = settings.sparsity > 0 and step >= (1 - REFIT_SHARE) * settings.steps
        if refitting:
            model.w_enc.requires_grad_(False)
            model.b_enc.requires_grad_(False)
        rows = slice(None)
        if settings.batch is not None:
            rows = torch.randint(len(x), (settings.batch,), generator=generator)
        pressure = 0.0 if refitting else settings.sparsity * min(1.0, 2 * step / settings.steps)
        loss = model.loss(x[rows], y[rows], pressure)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.fitted(x_scale, y_scale, b_dec)


def fraction_unexplained(
    basis: Basis, x_NLd: Float[Tensor, "N L d"], y_NLd: Float[Tensor, "N L d"]
) -> list[float]:
    """By layer: squared error over squared deviation from the mean."""
    activations = [encode(x) for encode, x in zip(basis.encoders, x_NLd.unbind(1), strict=True)]
    shares = []
    for layer, y in enumerate(y_NLd.unbind(1)):
        error = y - basis.output(layer, activations)
        shares.append(float(error.square().sum() / (y - y.mean(0)).square().sum()))
    return shares


class _Model(torch.nn.Module):
    """The parameters in training, in units in which inputs and outputs have norm one."""

    def __init__(self, layers: int, width: int, settings: FitSettings) -> None:
        super().__init__()
        self.settings = settings
        generator = torch.Generator().manual_seed(settings.seed)
        rows = torch.randn(layers, settings.features, width, generator=generator)
        rows /= rows.norm(dim=-1, keepdim=True)
        self.w_enc = torch.nn.Parameter(rows)
        self.b_enc = torch.nn.Parameter(torch.zeros(layers, settings.features))
        pairs = [(n, m) for n in range(layers) for m in range(n, layers)]
        self.pairs = [(n, m) for n, m in pairs if settings.cross_layer or n == m]
        self.w_dec = torch.nn.Parameter(
            0.1 * torch.randn(len(self.pairs), settings.features, width, generator=generator)
        )
        self.b_dec = torch.nn.Parameter(torch.zeros(layers, width))

    @torch.no_grad()
    def begin_as(self, start: Basis, x_scale: Tensor, y_scale: Tensor, mean: Tensor) -> None:
        """Take over the features of another basis."""
        assert start.rows is not None and start.biases is not None
        for layer, (rows, biases) in enumerate(zip(start.rows, start.biases, strict=True)):
            self.w_enc[layer, : len(rows)] = rows * x_scale[layer]
            self.b_enc[layer, : len(rows)] = biases
            self.b_dec[layer] = (start.constants[layer] - mean[layer]) / y_scale[layer]
            for number, pair in enumerate(self.pairs):
                if pair[0] == layer:
                    own = start.decoders.get(pair, torch.zeros_like(rows))
                    self.w_dec[number, : len(rows)] = own / y_scale[pair[1]]

    def loss(self, x_NLd: Tensor, y_NLd: Tensor, pressure: float) -> Tensor:
        pre_LNF = torch.einsum("nld,lfd->lnf", x_NLd, self.w_enc) + self.b_enc[:, None]
        a_LNF = _activate(pre_LNF, self.settings.k)
        layers = len(self.b_dec)
        error = pressure * 0.0
        for layer in range(layers):
            written = self.b_dec[layer]
            for pair, (source, target) in enumerate(self.pairs):
                if target == layer:
                    written = written + a_LNF[source] @ self.w_dec[pair]
            error = error + (y_NLd[:, layer] - written).square().sum(-1).mean()
        if pressure == 0:
            return error
        squares = self.w_dec.square().sum(-1)
        norms = torch.stack(
            [
                sum(squares[p] for p, (source, _) in enumerate(self.pairs) if source == layer)
                for layer in range(layers)
            ]
        )
        norms = (norms + SMALLEST_SQUARE).sqrt()  # its derivative at 0 is infinite
        return error + pressure * (a_LNF * norms[:, None]).sum(-1).mean(1).sum()

    def fitted(self, x_scale: Tensor, y_scale: Tensor, mean: Tensor) -> Fitted:
        with torch.no_grad():
            return Fitted(
                w_enc=tuple((self.w_enc / x_scale[:, None]).clone().unbind()),
                b_enc=tuple(self.b_enc.detach().clone().unbind()),
                w_dec={
                    pair: (self.w_dec[n] * y_scale[pair[1]]).clone()
                    for n, pair in enumerate(self.pairs)
                },
                b_dec=tuple((self.b_dec * y_scale + mean).clone().unbind()),
                k=self.settings.k,
            )


def _activate(pre: Tensor, k: int | None) -> Tensor:
    """ReLU, or the k largest positive values."""
    if k is None:
        return pre.relu()
    values, indices = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, indices, values.relu())
