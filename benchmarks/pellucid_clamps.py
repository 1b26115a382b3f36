"""Clamped generations by pellucid, timed: one batch, a row a clamp, or one by one."""

import torch

from benchmarks.peers.clamp_jobs import Job, Tokens, measure_job, parse_options
from pellucid.dictionaries.checkpoint import load_dictionaries
from pellucid.interventions import Clamp, Intervention, generate
from pellucid.models.load import load_model

PACKAGES = ("pellucid", "torch", "transformers")


def main() -> None:
    options = parse_options("one batch", "one by one")
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    dictionaries = load_dictionaries(options.transcoders)

    def generated(job: Job, clamps: list[tuple[int, int, float]]) -> Tokens:
        done = generate(
            model,
            [job.ids] * len(clamps),
            [
                Intervention(f"feature@{layer}[{feature}]", Clamp(value), rows=(row,))
                for row, (layer, feature, value) in enumerate(clamps)
            ],
            dictionaries=dictionaries,
            max_new_tokens=job.new_tokens,
            eos_token_id=-1,
        )
        everywhere = len(job.ids) - 1 + job.new_tokens - 1
        assert done.receipt.tokens_edited == len(clamps) * everywhere, "every token was clamped"
        return done.tokens

    def run(job: Job) -> Tokens:
        if options.way == "one batch":
            return generated(job, job.clamps)
        return [row for clamp in job.clamps for row in generated(job, [clamp])]

    measure_job(options, run, PACKAGES)


if __name__ == "__main__":
    main()
