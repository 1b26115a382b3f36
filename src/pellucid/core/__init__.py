"""Types, errors, configuration, files and manifests that every other layer is built on."""
