"""Foreign graph formats, one module each."""
