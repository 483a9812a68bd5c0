"""Settings that all tests share."""

import pytest
from hypothesis import HealthCheck, settings

# the same examples on every run, so that a failure is the change's fault; `make fuzz` looks for new ones
settings.register_profile("default", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", deadline=None, max_examples=3000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "optax", "flax")


class _Module(pytest.Module):
    """A test module that is skipped, with the reason, where the framework that it imports is not installed."""

    def _getobj(self):
        try:
            return super()._getobj()
        except self.CollectError as error:
            cause = error.__cause__ or error.__context__
            missing = cause.name.partition(".")[0] if isinstance(cause, ModuleNotFoundError) and cause.name else ""
            if missing in FRAMEWORKS:
                pytest.skip(f"{missing} is not installed", allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path, parent):
    return _Module.from_parent(parent, path=module_path)
