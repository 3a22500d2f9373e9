"""The profile's model again, for two thousand histories twice as long."""

import pytest
from hypothesis import HealthCheck, settings
from test_profile_model import ProfileMachine

LongMachine = type("LongMachine", (ProfileMachine,), {})
TestLongProfile = LongMachine.TestCase
TestLongProfile.settings = settings(
    max_examples=2000,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLongProfile = pytest.mark.soak(pytest.mark.timeout(7200)(TestLongProfile))
