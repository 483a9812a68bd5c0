"""Settings that all tests share."""

from hypothesis import HealthCheck, settings

# the same examples on every run, so that a failure is the change's fault; `make fuzz` looks for new ones
settings.register_profile("default", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", deadline=None, max_examples=3000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
