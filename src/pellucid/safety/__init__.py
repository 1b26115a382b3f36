"""Safety: from contrast sets to a calibrated, conditional, audited guard."""

from pellucid.safety.guard import Guard, load_guard
from pellucid.safety.judge import RefusalJudge
from pellucid.safety.requests import Request, read_requests
from pellucid.safety.workflow import Workflow

__all__ = ["Guard", "RefusalJudge", "Request", "Workflow", "load_guard", "read_requests"]
