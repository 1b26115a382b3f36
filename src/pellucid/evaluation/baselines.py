"""What dictionaries must beat: ablation, a linear map, and a random dictionary of equal sparsity.

All are fitted on text apart from the evaluation's, and put in place of the same MLPs:

zero     nothing is written.
mean     the mean MLP output.
linear   ridge least squares from MLP input to MLP output, with an intercept. It bounds what a skip
         path can do by itself.
random   a transcoder of the same size with random unit-norm encoder and decoder rows. Its encoder
         reads the input less its mean; it keeps as many features a token as the dictionary's mean
         L0. One scale and a bias, the least-squares ones, fit its output to the MLP's.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from pellucid.core.types import Site
from pellucid.dictionaries.activations import TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.transcoder import Transcoder
from pellucid.evaluation.rows import EvaluationRows
from pellucid.harvest.fidelity import LayerFidelity
from pellucid.replacement.splice import MlpFunction

BASELINES = ("zero", "mean", "linear", "random")
_SMALLEST_PENALTY = 1e-12
RIDGE = 1e-4
"""The ridge penalty, as a share of the mean variance of an input coordinate."""


class _Moments:
    """Running first and second moments of an MLP's input x and output y, in float64."""

    def __init__(self, dictionary: Dictionary) -> None:
        def empty(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=dictionary.W_dec.device)

        self._tokens = 0
        self._sum_x, self._sum_y = empty(dictionary.d_in), empty(dictionary.d_out)
        self._xx = empty(dictionary.d_in, dictionary.d_in)
        self._xy = empty(dictionary.d_in, dictionary.d_out)

    def add(self, x: Float[Tensor, "N d"], y: Float[Tensor, "N e"]) -> None:
        """Take in N tokens."""
        x, y = x.double(), y.double()
        self._tokens += len(x)
        self._sum_x += x.sum(dim=0)
        self._sum_y += y.sum(dim=0)
        self._xx += x.T @ x
        self._xy += x.T @ y

    @property
    def mean_x(self) -> Float[Tensor, " d"]:
        """Mean input."""
        return self._sum_x / self._tokens

    @property
    def mean_y(self) -> Float[Tensor, " e"]:
        """Mean output."""
        return self._sum_y / self._tokens

    def solve(self) -> tuple[Float[Tensor, "d e"], Float[Tensor, " e"]]:
        """The ridge weights and intercept: y is about x @ weights + intercept."""
        covariance = self._xx / self._tokens - torch.outer(self.mean_x, self.mean_x)
        cross = self._xy / self._tokens - torch.outer(self.mean_x, self.mean_y)
        penalty = (RIDGE * covariance.diagonal().mean()).clamp_min(_SMALLEST_PENALTY)
        eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        weights = torch.linalg.solve(covariance + penalty * eye, cross)
        return weights, self.mean_y - self.mean_x @ weights


@torch.no_grad()
def fit_baselines(
    dictionaries: DictionarySet,
    fidelity: Sequence[LayerFidelity],
    rows: EvaluationRows,
    *,
    seed: int,
) -> dict[str, dict[int, MlpFunction]]:
    """For each baseline, layer -> the function that stands in for that layer's MLP.

    Args:
        dictionaries: transcoders from `mlp_in` to `mlp_out`.
        fidelity: their mean active features a token.
        rows: the text to fit on, read twice.
        seed: of the random dictionaries.
    """
    layers = dictionaries.layers
    moments = {layer: _Moments(dictionaries[layer]) for layer in layers}
    for layer, x, y in _each_mlp(layers, rows):
        moments[layer].add(x, y)

    generator = torch.Generator().manual_seed(seed)
    random = {
        figures.layer: random_transcoder(
            dictionaries[figures.layer],
            mean=moments[figures.layer].mean_x,
            k=max(1, round(figures.l0)),
            generator=generator,
        )
        for figures in fidelity
    }
    outputs = {layer: _ScaleFit() for layer in layers}
    for layer, x, y in _each_mlp(layers, rows):
        outputs[layer].add(random[layer](x), y)
    return {
        "zero": {layer: _constant(torch.zeros_like(moments[layer].mean_y)) for layer in layers},
        "mean": {layer: _constant(moments[layer].mean_y) for layer in layers},
        "linear": {layer: _affine(*moments[layer].solve()) for layer in layers},
        "random": {layer: outputs[layer].applied_to(random[layer]) for layer in layers},
    }


def _each_mlp(
    layers: Sequence[int], rows: EvaluationRows
) -> Iterator[tuple[int, Float[Tensor, "N d"], Float[Tensor, "N d"]]]:
    """Layer, MLP input and MLP output of every batch."""
    sites = {layer: (Site("mlp_in", layer), Site("mlp_out", layer)) for layer in layers}
    for batch in rows.activations([site for pair in sites.values() for site in pair]):
        for layer, (read, write) in sites.items():
            yield layer, batch.values[read], batch.values[write]


def _constant(value: Tensor) -> MlpFunction:
    return lambda x: value.to(x.dtype).expand(len(x), -1)


def _affine(weights: Tensor, intercept: Tensor) -> MlpFunction:
    return lambda x: x @ weights.to(x.dtype) + intercept.to(x.dtype)


def random_transcoder(
    like: Dictionary, *, mean: Float[Tensor, " d"], k: int, generator: torch.Generator
) -> Transcoder:
    """Random unit rows in the place of a dictionary's.

    Args:
        like: whose size and sites it has.
        mean: of what is read; the encoder reads the input less it.
        k: features kept a token.
        generator: a CPU generator.
    """
    dtype, device = like.W_dec.dtype, like.W_dec.device
    drawn = (
        torch.randn(like.num_features, width, generator=generator)
        for width in (like.d_in, like.d_out)
    )
    encoder, decoder = (normalize(rows, dim=1).to(device, dtype) for rows in drawn)
    return Transcoder(
        W_enc=encoder,
        b_enc=-encoder @ mean.to(dtype),
        W_dec=decoder,
        b_dec=torch.zeros(like.d_out, dtype=dtype, device=device),
        activation=TopK(k),
        read_site=like.read_site,
        write_site=like.write_site,
    )


class _ScaleFit:
    """The scale s and bias b with the least sum |y - s r - b|^2, s one number."""

    def __init__(self) -> None:
        self._tokens = 0
        self._sum_r: Tensor | float = 0.0
        self._sum_y: Tensor | float = 0.0
        self._rr = 0.0
        self._ry = 0.0

    def add(self, r: Float[Tensor, "N d"], y: Float[Tensor, "N d"]) -> None:
        r, y = r.double(), y.double()
        self._tokens += len(r)
        self._sum_r = self._sum_r + r.sum(dim=0)
        self._sum_y = self._sum_y + y.sum(dim=0)
        self._rr += float(r.square().sum())
        self._ry += float((r * y).sum())

    def applied_to(self, dictionary: Transcoder) -> Transcoder:
        """The dictionary with the fitted scale and bias in its decoder."""
        mean_r = torch.as_tensor(self._sum_r) / self._tokens
        mean_y = torch.as_tensor(self._sum_y) / self._tokens
        spread = self._rr / self._tokens - float(mean_r.square().sum())
        shared = self._ry / self._tokens - float(mean_r @ mean_y)
        scale = shared / spread if spread > 0 else 0.0
        dictionary.W_dec.mul_(scale)
        dictionary.b_dec.copy_(mean_y - scale * mean_r)
        return dictionary
