"""Steps of many chains, written by a model and read, as a folder of parts."""
