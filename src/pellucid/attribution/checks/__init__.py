"""What a graph predicts, compared with interventions on the real modules."""
