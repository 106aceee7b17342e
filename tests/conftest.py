"""One profile for hypothesis: modest, and without a deadline, since machines that run tests are shared."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=3000)
settings.load_profile(os.environ.get("ROLLKIT_HYPOTHESIS", "default"))
