"""Language models: families described as data, sites resolved, values read and edited.

- `arch`, `families`, `attention_layouts`: what pellucid knows about each architecture, as data.
- `taps`: the only place that registers hooks.
- `linear`: the norms and value-output weights that attribution freezes.
- `prompt`: which tokens a prompt starts with and how padding is handled.
- `model`, `load`: the model itself and how it is obtained.
- `observation`, `conformance`: checks that a description is true of a live model.
"""
