"""Attribution graphs: the artifact, its scores, pruning, foreign formats and the offline page."""
