"""For all tests: Hypothesis has no deadline, for a busy machine makes a test slow and not wrong; a soak tries more."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = 2000 if os.environ.get("TRIMTAB_SOAK") else 100
settings.register_profile("trimtab", deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trimtab")
