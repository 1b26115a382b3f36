"""A discovery on disk: its requests, vectors and figures, read back exactly."""

from pathlib import Path
from typing import Any

import torch

from pellucid.core.errors import CheckpointError
from pellucid.core.types import parse_site
from pellucid.probes.probe import Probe
from pellucid.safety.candidates import Candidate
from pellucid.safety.discover import Discovery
from pellucid.safety.readout import Readout
from pellucid.safety.requests import read_requests, write_requests
from pellucid.safety.stage import read_stage

STAGE = "discover"
REQUESTS, VECTORS = "requests.jsonl", "vectors.safetensors"
_PROBE = "probe"
_DIRECTION, _REFUSAL = "direction.", "refusal."


def record_of(discovery: Discovery) -> dict[str, Any]:
    """All of a discovery but its requests and vectors, JSON-able."""
    probe, readout = discovery.probe, discovery.readout
    return discovery.record | {
        "probe": {
            "site": str(probe.site),
            "bias": probe.bias,
            "threshold": probe.threshold,
            "tokens": probe.tokens,
            "provenance": probe.provenance,
        },
        "readout": {"refusing": readout.refusing, "complying": readout.complying},
    }


def write_data(folder: Path, discovery: Discovery) -> list[str]:
    """Write a discovery's requests and vectors into a folder.

    Args:
        folder: where.
        discovery: what.

    Returns:
        The names of the files.

    Raises:
        StorageError: the disk refuses.
    """
    from safetensors.torch import save_file

    write_requests(folder / REQUESTS, discovery.requests)
    tensors = {_PROBE: discovery.probe.vector}
    tensors |= {f"{_DIRECTION}{site}": v for site, v in discovery.directions.items()}
    tensors |= {f"{_REFUSAL}{site}": v for site, v in discovery.refusal.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / VECTORS)
    return [REQUESTS, VECTORS]


def read_discovery(root: Path, *, fingerprint: str | None = None) -> Discovery:
    """The discovery of a workflow's folder.

    Args:
        root: the workflow's folder.
        fingerprint: of the model at hand.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    from safetensors.torch import load_file

    record = read_stage(root, STAGE, fingerprint=fingerprint)
    folder = Path(root) / STAGE
    vectors = load_file(folder / VECTORS)

    def of(prefix: str) -> dict[Any, torch.Tensor]:
        named = {name: value for name, value in vectors.items() if name.startswith(prefix)}
        return {parse_site(name.removeprefix(prefix)): value for name, value in named.items()}

    try:
        probe, readout = record.pop("probe"), record.pop("readout")
        return Discovery(
            requests=read_requests(folder / REQUESTS),
            probe=Probe(**(probe | {"site": parse_site(probe["site"]), "vector": vectors[_PROBE]})),
            candidates=[
                Candidate.from_json(each)
                for each in record.get("candidates", {"features": []})["features"]
            ],
            readout=Readout(tuple(readout["refusing"]), tuple(readout["complying"])),
            directions=of(_DIRECTION),
            refusal=of(_REFUSAL),
            record=record,
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} lacks {error}; run `pellucid safety discover` again with this --out"
        ) from None
