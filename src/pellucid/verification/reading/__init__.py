"""What is read of a step: free scores of one forward pass, and its attribution graphs."""
