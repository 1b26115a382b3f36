"""Circuit-based reasoning verification: where a chain of thought goes wrong, seen in its graphs."""
