"""helm, for `scripts/services get`: the tests render the chart with it. It is no server, so there is nothing to start."""

from pathlib import Path

from service_base import Service, go_binary

HELM = "helm.sh/helm/v3/cmd/helm@v3.22.0"


class Helm(Service):
    """The program alone, built from source once."""

    name = "helm"

    def get(self, *, quick: bool = False) -> None:
        go_binary("helm", HELM, quick=quick)

    def launch(self) -> None:
        """Nothing runs."""

    def answers(self, state: dict) -> bool:  # noqa: ARG002 - nothing runs
        return False

    def environment(self, state: dict) -> dict[str, str]:  # noqa: ARG002 - nothing runs
        return {}


def helm_binary(*, quick: bool = False) -> Path:
    """Return the program. Raises UnavailableError where it is neither there nor to be built; with `quick` it is not built."""
    return go_binary("helm", HELM, quick=quick)
