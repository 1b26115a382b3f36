"""What is read of a step: confidence, hidden states, features, and attribution graphs."""
