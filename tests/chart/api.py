"""As much of a Kubernetes API as helm's `lookup` asks for: which kinds there are, and single objects of one namespace."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KINDS = {
    "/api/v1": ("v1", {"secrets": "Secret"}),
    "/apis/apps/v1": ("apps/v1", {"statefulsets": "StatefulSet"}),
}


@contextmanager
def running_api(objects: list[dict[str, Any]], folder: Path) -> Iterator[Path]:
    """Serve these objects on loopback; give the configuration of clients."""
    known = {_path(one): one for one in objects}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found = _discovery(path) or known.get(path)
            body = json.dumps(
                found
                or {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "reason": "NotFound",
                    "code": 404,
                }
            )
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = folder / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [cluster],
                "contexts": [context],
                "users": [{"name": "c", "user": {}}],
            }
        )
    )
    config.chmod(0o600)
    try:
        yield config
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _path(one: dict[str, Any]) -> str:
    (root, plural) = next(
        (r, p) for r, (_, kinds) in KINDS.items() for p, kind in kinds.items() if kind == one["kind"]
    )
    return f"{root}/namespaces/{one['metadata']['namespace']}/{plural}/{one['metadata']['name']}"


def _discovery(path: str) -> dict[str, Any] | None:
    if path == "/version":
        return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        version = {"groupVersion": "apps/v1", "version": "v1"}
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [{"name": "apps", "versions": [version], "preferredVersion": version}],
        }
    if path in KINDS:
        version, kinds = KINDS[path]
        return {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [
                {
                    "name": plural,
                    "kind": kind,
                    "namespaced": True,
                    "verbs": ["get", "list"],
                    "singularName": "",
                }
                for plural, kind in kinds.items()
            ],
        }
    return None
