"""Keys that senders show as they are."""

import pytest

from memoturnd.auth.secrets import Secrets
from memoturnd.errors import ConfigurationError
from memoturnd.settings_table import Secret


async def test_several_values_count_while_a_key_is_being_changed():
    key = Secrets("MEMOTURN_PLATFORM_KEY", Secret("the-new-one, the-old-one"), None)
    await key.refresh()
    assert (key.first, key.matches(b"the-old-one"), key.matches(b"the")) == ("the-new-one", True, False)


@pytest.mark.parametrize("text", ["", " , ", "a,long-random-part", "long-random-part b"])
async def test_no_part_of_a_key_counts_because_it_holds_a_comma(text):
    key = Secrets("MEMOTURN_PLATFORM_KEY", Secret(text), None)
    with pytest.raises(ConfigurationError) as refused:
        await key.refresh()
    assert "long-random" not in str(refused.value)
