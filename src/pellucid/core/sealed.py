"""JSON files that carry a checksum of themselves, so that no flipped byte passes unseen."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "checksum"


def sealed_text(record: Mapping[str, Any]) -> str:
    """A record as JSON, with the SHA-256 of its text without that checksum."""
    return _text({**record, SEAL: _checksum(record)})


def is_sealed(record: Mapping[str, Any], text: str) -> bool:
    """Whether a text is byte for byte what was written; an old one without checksum passes.

    Args:
        record: what the text says.
        text: the file's, its line ends untouched.
    """
    if SEAL not in record:
        return True
    unsealed = {name: value for name, value in record.items() if name != SEAL}
    return _text(record) == text and _checksum(unsealed) == record[SEAL]


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(record).encode()).hexdigest()
