"""Which embedding endpoints are the operator's own."""

import pytest

from memoturnd.config import Settings
from memoturnd.core.self_hosted import is_self_hosted

INTERNAL = "internal"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:11434/v1",
        "http://LOCALHOST",
        "http://127.0.0.1:80",
        "http://127.9.9.9",
        "http://10.1.2.3",
        "http://172.16.0.1",
        "http://172.31.255.255",
        "https://192.168.1.1/v1",
        "http://169.254.1.1",
        "http://[::1]:8000",
        "http://embedder",
        "http://internal",
        "http://embedder.models.svc.cluster.local:8000",
        f"http://embedder.{INTERNAL}",
        f"http://embedder.{INTERNAL}.",
        "https://embed.example.com",
        "https://EMBED.example.com./v1",
        "http://8.8.8.8",
    ],
)
def test_own_endpoints(url):
    assert is_self_hosted(url, ("Embed.example.com", "8.8.8.8"))


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com",
        "https://api.voyageai.com/v1",
        "http://172.15.0.1",
        "http://172.32.0.1",
        "http://11.0.0.1",
        "http://192.169.0.1",
        "http://0.0.0.0",
        "http://8.8.8.8",
        "http://[2001:db8::1]",
        "http://[fe80::1]",
        "https://embed.example.com.evil.net",
        "https://evil-embed.example.com",
        "https://10.0.0.1.evil.net",
        "https://svc.cluster.local.evil.net",
        "http://134744072",  # 8.8.8.8, as some resolvers read it
        "http://0x08080808",
        "http://embedder.8",
        "http://",
    ],
)
def test_endpoints_of_others(url):
    hosts = ("embed.example.com",)

    assert not is_self_hosted(url, hosts)


@pytest.mark.parametrize(
    ("env", "at_home"),
    [
        ({"EMBED_PROVIDER": "local"}, True),
        ({"EMBED_PROVIDER": "openai", "EMBED_API_KEY": "k"}, False),
        ({"EMBED_PROVIDER": "openai", "EMBED_BASE_URL": "http://127.0.0.1:1"}, True),
        ({"EMBED_PROVIDER": "openai", "EMBED_BASE_URL": "https://e.example.com"}, False),
        (
            {
                "EMBED_PROVIDER": "openai",
                "EMBED_BASE_URL": "https://e.example.com",
                "EMBED_SELF_HOSTED_HOSTS": "a.b, e.example.com",
            },
            True,
        ),
        (
            {"EMBED_PROVIDER": "voyage", "EMBED_API_KEY": "k", "EMBED_SELF_HOSTED_HOSTS": "api.voyageai.com"},
            False,
        ),
    ],
)
def test_providers_own_address_is_never_the_operators(env, at_home):
    settings = Settings.from_env({f"MEMOTURN_{name}": value for name, value in env.items()})

    assert settings.embeds_at_home is at_home
