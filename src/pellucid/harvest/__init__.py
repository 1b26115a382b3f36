"""Text in, activations out: sources of documents, rows of tokens, shuffled live activations."""
