"""Ways to tell wrong steps from right ones: every competitor of the graph, and the graph itself."""
