"""Sparse dictionaries: SAEs and transcoders, their activations, sets and files."""

from pellucid.dictionaries.activations import (
    ACTIVATIONS,
    Activation,
    JumpReLU,
    ReLU,
    SignedTopK,
    TopK,
)
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.checkpoint import DICTIONARIES, save_dictionaries
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.convert import Conversion, convert
from pellucid.dictionaries.formats.load import load_dictionaries
from pellucid.dictionaries.formats.registry import FORMATS
from pellucid.dictionaries.sae import SAE
from pellucid.dictionaries.transcoder import Transcoder

__all__ = [
    "ACTIVATIONS",
    "DICTIONARIES",
    "FORMATS",
    "SAE",
    "Activation",
    "Conversion",
    "CrossLayerTranscoder",
    "Dictionary",
    "DictionarySet",
    "JumpReLU",
    "ReLU",
    "SignedTopK",
    "TopK",
    "Transcoder",
    "convert",
    "load_dictionaries",
    "save_dictionaries",
]
