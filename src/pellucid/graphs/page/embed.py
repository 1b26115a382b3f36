"""One file that needs no network: a template, a style, a script and data, and nothing else.

The script and the style are admitted by their hashes and everything else is forbidden by the
page's content security policy, so text from a model or a prompt can neither run nor load anything.
"""

import base64
import hashlib
import json
from typing import Any


def assemble(template: str, *, style: str, script: str, data: Any) -> str:
    """The page.

    Args:
        template: HTML that names @STYLE_HASH@, @SCRIPT_HASH@, @STYLE@, @SCRIPT@ and @DATA@ once.
        style: CSS.
        script: JavaScript, which reads the data as JSON from the element that holds it.
        data: JSON-able, without NaN.
    """
    parts = {
        "@STYLE_HASH@": source_hash(style),
        "@SCRIPT_HASH@": source_hash(script),
        "@STYLE@": style,
        "@SCRIPT@": script,
        "@DATA@": _script_safe(data),
    }
    page = template
    for name, text in parts.items():
        before, after = page.split(name)
        page = before + text + after
    return page


def source_hash(text: str) -> str:
    """How a content security policy admits a script or a style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script_safe(value: Any) -> str:
    """JSON that cannot end the script element it stands in, nor break a line."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
