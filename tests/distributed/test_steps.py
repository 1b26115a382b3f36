"""Steps spread over processes are those of one process: real processes under torchrun, gloo."""

import json

from support.torchrun import torchrun

CLOSE = 5e-6
"""Float32 sums in another order; Adam's epsilon is raised so that it does not blow them up."""


def test_every_kind_and_activation_over_tokens_and_features() -> None:
    ended = torchrun(4, "support.distributed_steps", "data=2,features=2")
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert len(found) == 2 * 16
    assert {case: worst for case, worst in found.items() if worst > CLOSE} == {}
