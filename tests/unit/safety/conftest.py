"""One small workflow on the specimen, shared by the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import pellucid
from pellucid.core.types import parse_site
from pellucid.safety.specimen_sets import specimen_judge, specimen_requests
from pellucid.safety.workflow import Workflow

SIZE = 80
SITES = [parse_site(name) for name in ("mlp_in@0", "resid_post@0", "resid_post@2")]


@pytest.fixture(scope="package")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workflow]:
    """Discovered and calibrated."""
    root: Path = tmp_path_factory.mktemp("safety")
    model, dictionaries = pellucid.load_model("specimen"), pellucid.load_dictionaries("specimen")
    made = Workflow(root, model, dictionaries)
    made.discover(specimen_requests(SIZE, seed=1), specimen_judge(), sites=SITES)
    made.calibrate(fpr=0.02)
    yield made
