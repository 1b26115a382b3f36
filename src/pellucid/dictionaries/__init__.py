"""Sparse dictionaries: SAEs and transcoders, their activations, sets and files."""

from pellucid.dictionaries.activations import ACTIVATIONS, Activation, JumpReLU, ReLU, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.checkpoint import DICTIONARIES, load_dictionaries, save_dictionaries
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.sae import SAE
from pellucid.dictionaries.transcoder import Transcoder

__all__ = [
    "ACTIVATIONS",
    "DICTIONARIES",
    "SAE",
    "Activation",
    "CrossLayerTranscoder",
    "Dictionary",
    "DictionarySet",
    "JumpReLU",
    "ReLU",
    "TopK",
    "Transcoder",
    "load_dictionaries",
    "save_dictionaries",
]
