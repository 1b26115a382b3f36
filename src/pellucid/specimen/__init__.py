"""The specimen: a small language model trained on an annotated procedural corpus."""
