"""For all tests: Hypothesis has no deadline, for on a busy machine a test is slow and not wrong."""

from hypothesis import HealthCheck, settings

settings.register_profile("trimtab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trimtab")
