"""Models whose circuit is known, and how faithfully each attribution method finds it."""
