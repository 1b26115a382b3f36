"""Settings of the whole test suite."""

from hypothesis import settings

# Machines differ in speed: no test depends on time. The same examples on every run.
settings.register_profile("pellucid", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("pellucid")
