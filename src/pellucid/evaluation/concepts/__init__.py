"""Do features stand for the concepts that the specimen's corpus is annotated with?"""

from pellucid.evaluation.concepts.measure import measure_concepts
from pellucid.evaluation.concepts.report import ConceptFigures, ConceptReport

__all__ = ["ConceptFigures", "ConceptReport", "measure_concepts"]
