"""Errors a user can act on.

Every message is one sentence or two that say what is wrong, the value seen, and what to do next.
The command line prints the message on one line and exits with `exit_code`.
"""


class PellucidError(Exception):
    """Base of every error caused by input or surroundings rather than by a defect of ours."""

    exit_code = 2


class ConfigError(PellucidError):
    """A setting is unknown, out of range or contradicts another."""


class ModelError(PellucidError):
    """A model cannot be found, read, or is of a family that is not supported."""


class ConformanceError(ModelError):
    """A loaded model does not behave as its architecture description says."""


class SiteError(PellucidError):
    """A site does not exist in this model, or its text form cannot be read."""


class PromptError(PellucidError):
    """A prompt is empty, too long for the model, or cannot be tokenized."""


class DataError(PellucidError):
    """A data source is missing, empty or unreadable."""


class DictionaryError(PellucidError):
    """Dictionaries do not fit the model, each other, or the operation asked of them."""


class CheckpointError(PellucidError):
    """A saved artifact is missing, truncated, altered or of another version."""


class StorageError(PellucidError):
    """The disk refused a write (full, read-only, no permission)."""


class GraphError(PellucidError):
    """A graph file or a tracing request is malformed."""


class InterventionError(PellucidError):
    """An intervention is malformed, contradicts another, or did not happen."""
