"""The profile's model again, on a real bucket: shorter histories, since every step restores every txid from it."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, run_state_machine_as_test
from servers import settings_of
from test_profile_model import ProfileMachine

from memoturnd.seams.object_store import ObjectStore
from memoturnd.stores.open import open_store


def run_on(server, client: str, examples: int, steps: int) -> None:
    urls = []

    class BucketMachine(ProfileMachine):
        def __init__(self) -> None:
            self.url = server.fresh_url()
            urls.append(self.url)
            super().__init__()

        @initialize()
        def something_comes_into_the_bucket(self) -> None:
            self.write(0, "a", "first", durable=True)

        def open_bucket(self) -> ObjectStore:
            return open_store(self.url, s3_client=client)

    with settings_of(server):
        run_state_machine_as_test(
            BucketMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert any("/branches/" in key for url in urls for key in server.keys(url)), (
        "nothing came into the bucket"
    )


@pytest.mark.parametrize("client", ["aiobotocore", "obstore"])
def test_profile_on_a_real_bucket_is_the_model(s3_server, client):
    run_on(s3_server, client, examples=3, steps=12)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("client", ["aiobotocore", "obstore"])
def test_profile_on_a_real_bucket_is_the_model_for_long(s3_server, client):
    run_on(s3_server, client, examples=200, steps=40)
