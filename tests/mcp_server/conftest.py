"""A node with authentication on and a language model."""

import pytest
from fake_model import serving_model_beside, settings_of
from mcp_support import PLATFORM_KEY, Node
from processes import NodeHome


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    with (
        serving_model_beside() as model,
        NodeHome(
            tmp_path_factory.mktemp("mcp"), AUTH="on", PLATFORM_KEY=PLATFORM_KEY, **settings_of(model)
        ) as home,
    ):
        yield Node(home, home.start())
