"""Attribution graphs of one prompt: linear pull-back, selection, causal check."""
