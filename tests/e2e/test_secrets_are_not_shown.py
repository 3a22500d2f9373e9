"""No secret of a node is shown by it: not in logs, errors, metrics, `--help`, its command line, or where it keeps data."""

import base64
import json
import os
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from processes import NodeHome, command, environment, run_node

from memoturnd.auth.keys import cluster_key_of, new_key, written

PLATFORM, CLUSTER, MODEL_KEY = "platform-7f3c9", "cluster-91be2", "sk-model-55aa1"


def bearing(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_is_in_logs_errors_metrics_or_help(tmp_path: Path, log_format: str) -> None:
    key = new_key()
    keys = tmp_path / "keys"
    keys.write_text(written([key]))
    settings = {
        "DATA_DIR": str(tmp_path / "refused"),
        "AUTH": "on",
        "PLATFORM_KEY": PLATFORM,
        "CLUSTER_KEY": CLUSTER,
        "AUTH_KEY_FILE": str(keys),
        "EXTRACT_API_KEY": MODEL_KEY,
        "LOG_LEVEL": "debug",
        "REQUEST_LOG": "all",
        "LOG_FORMAT": log_format,
    }
    seen = [
        run_node(**settings, HOT_CAP="many").stderr,
        run_node(**{**settings, "CLUSTER_KEY": PLATFORM}).stderr,
    ]
    helped = subprocess.run(
        [*command(), "--help"], env=environment(**settings), capture_output=True, text=True, check=True
    )
    seen.append(helped.stdout)
    del settings["DATA_DIR"]
    with NodeHome(tmp_path / "home", **settings) as home:
        node = home.start()
        with httpx.Client(base_url=node.url) as client:
            minted = client.post(
                "/v1/namespaces/app/tokens", json={"scope": "admin"}, headers=bearing(PLATFORM)
            )
            token = minted.json()["token"]
            memory = {"memories": [{"type": "fact", "summary": "x"}]}
            ingested = client.post("/v1/memory/app/ann/memories", json=memory, headers=bearing(token))
            assert ingested.status_code == 201
            for headers in (
                bearing(PLATFORM[:-1]),
                bearing(PLATFORM + "x"),
                bearing(CLUSTER),
                bearing(token + "x"),
                bearing(f"{PLATFORM} {PLATFORM}"),
                {"Authorization": f"Basic {PLATFORM}"},
                {"X-Memoturn-Internal": PLATFORM},
                {**bearing(token), "Memoturn-Tenant": token[:60].lower()},
            ):
                paths = ("/v1/databases", "/v1/memory/app", "/v1/nothing")
                seen += [shown(client.get(path, headers=headers)) for path in paths]
            revoke = client.post("/v1/tokens/revoke", json={"token": token}, headers=bearing(PLATFORM))
            seen += [shown(revoke), shown(client.get("/v1/memory/app", headers=bearing(token)))]
            for path in ("/v1/keys", "/v1/namespaces/app/tokens", "/v1/databases"):
                seen.append(shown(client.get(path, headers=bearing(PLATFORM))))
            seen += [
                shown(client.get(path))
                for path in ("/metrics", "/openapi.json", "/.well-known/jwks.json", "/ready")
            ]
        seen.append(Path(f"/proc/{node.pid}/cmdline").read_text())
        seen += [path.read_bytes().decode("latin-1") for path in home.data_dir.rglob("*") if path.is_file()]
        keys.write_text(f"{base64.b64encode(key.der).decode()} nonsense")
        deadline = time.monotonic() + 20
        while "signing keys failed" not in home.log():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        node.stop()
        seen.append(home.log())
    secret = written([key]).strip()
    for hidden in (
        PLATFORM,
        CLUSTER,
        MODEL_KEY,
        secret,
        secret[20:60],
        cluster_key_of(key),
        token,
        token.split(".")[2],
    ):
        for text in seen:
            assert hidden not in text, (hidden, text[:200])


def shown(answer: httpx.Response) -> str:
    return json.dumps(dict(answer.headers)) + answer.text


def test_the_settings_of_a_node_do_not_show_their_secrets() -> None:
    from memoturnd.config import Settings

    given = {
        "MEMOTURN_AUTH": "on",
        "MEMOTURN_PLATFORM_KEY": PLATFORM,
        "MEMOTURN_CLUSTER_KEY": CLUSTER,
        "MEMOTURN_AUTH_KEY": written([new_key()]).strip(),
    }
    text = repr(Settings.from_env(given))
    assert not any(secret in text for name, secret in given.items() if name != "MEMOTURN_AUTH")
    assert os.environ.get("MEMOTURN_PLATFORM_KEY") is None
