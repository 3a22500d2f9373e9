"""Programs that tests run and nobody starts, for `scripts/services get`: helm renders the chart, compose reads compose.yaml."""

from pathlib import Path

from service_base import Service, go_binary

HELM = "helm.sh/helm/v3/cmd/helm@v3.22.0"
COMPOSE = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
"""The reader of Docker Compose by itself."""


class Program(Service):
    """A program alone, built from source once."""

    module = ""

    def get(self, *, quick: bool = False) -> None:
        self.binary(quick=quick)

    @classmethod
    def binary(cls, *, quick: bool = False) -> Path:
        """Return it. Raises UnavailableError where it is neither there nor to be built; with `quick` it is not built."""
        return go_binary(cls.name, cls.module, quick=quick)

    def launch(self) -> None:
        """Nothing runs."""

    def answers(self, state: dict) -> bool:  # noqa: ARG002 - nothing runs
        return False

    def environment(self, state: dict) -> dict[str, str]:  # noqa: ARG002 - nothing runs
        return {}


class Helm(Program):
    name, module = "helm", HELM


class Compose(Program):
    name, module = "compose", COMPOSE
