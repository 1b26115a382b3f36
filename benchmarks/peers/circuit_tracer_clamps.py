"""Clamped generations by circuit-tracer, timed. Runs in circuit-tracer's environment.

`feature_intervention_generate` takes one prompt at a time. Attention is not frozen and activations
are not returned, which is its fastest setting and the work that the others do.
"""

import torch

from benchmarks.peers.circuit_tracer import load_replacement_model
from benchmarks.peers.clamp_jobs import Job, Tokens, measure_job, parse_options

PACKAGES = ("circuit-tracer", "transformer-lens", "torch", "transformers")


def main() -> None:
    options = parse_options("one by one")
    torch.set_num_threads(options.threads)
    model = load_replacement_model(options.model, options.transcoders)

    def run(job: Job) -> Tokens:
        # Ids do not work here: it reads the prompt's length from [S] and generates from [1, S].
        prompt, rows = model.tokenizer.decode(job.ids), []
        for layer, feature, value in job.clamps:
            whole, _, _ = model.feature_intervention_generate(
                prompt,
                [(layer, slice(1, None), feature, value)],
                freeze_attention=False,
                return_activations=False,
                max_new_tokens=job.new_tokens,
                do_sample=False,
                stop_at_eos=False,
                verbose=False,
                prepend_bos=False,
                return_type="tokens",
            )
            rows.append(whole.flatten().tolist()[len(job.ids) :])
        return rows

    measure_job(options, run, PACKAGES)


if __name__ == "__main__":
    main()
