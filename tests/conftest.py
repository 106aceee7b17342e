"""One profile for hypothesis: modest, and without a deadline, since machines that run tests are shared."""

from hypothesis import HealthCheck, settings
from tests.thorough import examples

settings.register_profile(
    "rollkit", max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("rollkit")
