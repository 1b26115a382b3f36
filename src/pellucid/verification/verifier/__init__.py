"""Verifiers: from what was read of a step to the calibrated probability that it is wrong."""

from pellucid.verification.verifier.crossed import Crossed, cross_validate
from pellucid.verification.verifier.saved import load_verifier, save_verifier
from pellucid.verification.verifier.settings import Settings
from pellucid.verification.verifier.verifier import Verifier

__all__ = [
    "Crossed",
    "Settings",
    "Verifier",
    "cross_validate",
    "load_verifier",
    "save_verifier",
]
