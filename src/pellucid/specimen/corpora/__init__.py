"""One module a task: its tables, its grammar and `document(rng, split)`."""
