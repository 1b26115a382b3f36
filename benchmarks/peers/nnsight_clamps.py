"""Clamped generations by nnsight, timed. Runs in nnsight's environment.

nnsight has no features: the clamped feature's activation is computed from its encoder row at each
step, and the edit is added to the MLP's output. Three ways: one generation a clamp; one batch of an
invoke a clamp, which is nnsight's way of editing rows separately; and one batch with the edit of
all rows written by hand as tensors.
"""

import torch
from nnsight.modeling.transformers import TransformersModel
from safetensors import safe_open

from benchmarks.peers.clamp_jobs import Job, Options, Tokens, measure_job, parse_options

PACKAGES = ("nnsight", "torch", "transformers")
Feature = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def read_features(options: Options) -> dict[tuple[int, int], Feature]:
    """Encoder row, encoder bias and decoder row of every clamped feature."""
    features = {}
    for layer, feature, _ in options.job.clamps:
        with safe_open(options.transcoders / f"layer_{layer}.safetensors", "pt") as file:
            encoder, bias, decoder = (file.get_slice(n) for n in ("W_enc", "b_enc", "W_dec"))
            features[layer, feature] = (encoder[feature], bias[feature], decoder[feature])
    return features


def change(x: torch.Tensor, value: torch.Tensor, feature: Feature, step: int) -> torch.Tensor:
    """What a clamp adds to the MLP's output of a row or of several; nothing at BOS."""
    encoder, bias, decoder = feature
    activation = torch.relu((x * encoder).sum(-1) + bias)
    added = (value - activation)[..., None] * decoder
    if step == 0:
        added[:, 0] = 0
    return added


def by_layer(
    job: Job, features: dict[tuple[int, int], Feature]
) -> dict[int, tuple[list[int], torch.Tensor, Feature]]:
    """Rows, values and features of all clamps of each layer, as one tensor each."""
    together = {}
    for layer in sorted({clamp[0] for clamp in job.clamps}):
        rows = [row for row, clamp in enumerate(job.clamps) if clamp[0] == layer]
        clamps = [job.clamps[row] for row in rows]
        parts = zip(*(features[layer, index] for _, index, _ in clamps), strict=True)
        encoder, bias, decoder = (torch.stack(part)[:, None] for part in parts)
        values = torch.tensor([value for *_, value in clamps])[:, None]
        together[layer] = (rows, values, (encoder, bias, decoder))
    return together


class Nnsight:
    """The model and the clamped features, and the three ways."""

    def __init__(self, options: Options) -> None:
        self.model = TransformersModel(str(options.model), task="text-generation", dispatch=True)
        self.features = read_features(options)
        self.ways = {
            "one by one": self.one_by_one,
            "invokes": self.invokes,
            "by hand": self.by_hand,
        }

    def settings(self, job: Job) -> dict[str, object]:
        """Options of `generate`."""
        return {"max_new_tokens": job.new_tokens, "do_sample": False, "eos_token_id": None}

    def one_by_one(self, job: Job) -> Tokens:
        """One generation a clamp."""
        model, features, steps = self.model, self.features, job.new_tokens
        ids, rows = torch.tensor([job.ids]), []
        for layer, index, number in job.clamps:
            mlp, feature, value = model.model.layers[layer].mlp, features[layer, index], number
            with model.generate(ids, **self.settings(job)) as tracer:
                for step in tracer.iter[:steps]:
                    x = mlp.input
                    mlp.output = mlp.output + change(x, value, feature, step)
                whole = tracer.result.save()
            rows.append(whole[0, len(job.ids) :].tolist())
        return rows

    def invokes(self, job: Job) -> Tokens:
        """One batch, one invoke a clamp."""
        model, features, steps = self.model, self.features, job.new_tokens
        ids = torch.tensor([job.ids])
        with model.generate(**self.settings(job)) as tracer:
            for layer, index, value in job.clamps:
                with tracer.invoke(ids):
                    mlp, feature = model.model.layers[layer].mlp, features[layer, index]
                    for step in tracer.iter[:steps]:
                        x = mlp.input
                        mlp.output = mlp.output + change(x, value, feature, step)
            with tracer.invoke():
                whole = tracer.result.save()
        return whole[:, len(job.ids) :].tolist()

    def by_hand(self, job: Job) -> Tokens:
        """One batch, the edit of every layer's rows written as tensors."""
        model, steps, together = self.model, job.new_tokens, by_layer(job, self.features)
        ids = torch.tensor([job.ids] * len(job.clamps))
        with model.generate(ids, **self.settings(job)) as tracer:
            for step in tracer.iter[:steps]:
                for layer, (rows, values, feature) in together.items():
                    mlp = model.model.layers[layer].mlp
                    x = mlp.input[rows]
                    output = mlp.output.clone()
                    output[rows] += change(x, values, feature, step)
                    mlp.output = output
            whole = tracer.result.save()
        return whole[:, len(job.ids) :].tolist()


def main() -> None:
    options = parse_options("one by one", "invokes", "by hand")
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        measure_job(options, Nnsight(options).ways[options.way], PACKAGES)


if __name__ == "__main__":
    main()
