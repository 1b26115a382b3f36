"""Formats of dictionaries, ours and those of other tools: recognised, read, written, converted."""

from pellucid.dictionaries.formats.convert import Conversion, convert
from pellucid.dictionaries.formats.format import DictionaryFormat, Export, WritableFormat
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.load import load_dictionaries
from pellucid.dictionaries.formats.registry import FORMATS

__all__ = [
    "FORMATS",
    "Conversion",
    "DictionaryFormat",
    "Export",
    "HostModel",
    "WritableFormat",
    "convert",
    "load_dictionaries",
]
