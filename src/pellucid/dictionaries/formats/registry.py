"""Every format by name, in the order in which a folder is asked whether it is one."""

from pellucid.core.registry import Registry
from pellucid.dictionaries.formats.circuit_tracer import CircuitTracer
from pellucid.dictionaries.formats.circuit_tracer_clt import CircuitTracerCLT
from pellucid.dictionaries.formats.dictionary_learning import DictionaryLearning
from pellucid.dictionaries.formats.format import DictionaryFormat
from pellucid.dictionaries.formats.gemma_scope import GemmaScope
from pellucid.dictionaries.formats.gemma_scope_2 import GemmaScope2
from pellucid.dictionaries.formats.llamascopium import Llamascopium
from pellucid.dictionaries.formats.pellucid import Pellucid
from pellucid.dictionaries.formats.saelens import SAELens
from pellucid.dictionaries.formats.sparsify import Sparsify

FORMATS: Registry[DictionaryFormat] = Registry(
    "dictionary format",
    {
        each.name: each
        for each in (
            Pellucid(),
            CircuitTracer(),
            CircuitTracerCLT(),
            Sparsify(),
            SAELens(),
            Llamascopium(),
            GemmaScope(),
            GemmaScope2(),
            DictionaryLearning(),
        )
    },
)
