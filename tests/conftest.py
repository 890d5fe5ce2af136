"""Settings of all suites: property tests may be slow on a busy machine, that is no failure."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ostraka", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("ostraka")
