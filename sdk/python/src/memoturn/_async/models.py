"""The embedding models of a profile, and the job that embeds it again."""

from typing import TYPE_CHECKING, cast

from memoturn._async.address import AsyncAddress
from memoturn._core.bodies import given
from memoturn.types import EmbeddingModels, ReadOptions, ReembedJob, ReembedScope, WriteOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

_UNNAMED = "-"


class AsyncModels:
    """The part of a profile that is about its embedding models."""

    _address: AsyncAddress

    async def models(self, **options: "Unpack[ReadOptions]") -> EmbeddingModels:
        """Return the models that the profile has vectors of, and how many memories and turns have one of each."""
        return cast("EmbeddingModels", (await self._address.read("GET", "models", **options)).stamped())

    async def drop_model(self, name: str | None, **options: "Unpack[WriteOptions]") -> bool:
        """Drop a model with its vectors, the unnamed one for None; False when there is none of that name.

        Memories and turns stay. Raises ConflictError while a job embeds with it.
        """
        return await self._address.remove("models", name or _UNNAMED, **options)

    async def reembed(
        self,
        *,
        model: str | None = None,
        scope: ReembedScope = "all",
        only_missing: bool = False,
        **options: "Unpack[WriteOptions]",
    ) -> ReembedJob:
        """Begin to embed what the profile holds with the model of the node's embedder, which `model` may name.

        It works in the background; `reembed_progress` says how far it is. With `only_missing` what has a vector
        of that model keeps it. Raises UnconfiguredError at a node without an embedder, ConflictError while
        another job of the branch is under way.
        """
        body = given(model=model, scope=scope, only_missing=only_missing or None)
        return cast(
            "ReembedJob", (await self._address.write("POST", "reembed", body=body, **options)).stamped()
        )

    async def reembed_progress(self, **options: "Unpack[ReadOptions]") -> ReembedJob:
        """Return how far the job is; its state is `none` when there was none."""
        return cast("ReembedJob", (await self._address.read("GET", "reembed", **options)).stamped())

    async def cancel_reembed(self, **options: "Unpack[WriteOptions]") -> None:
        """Cancel the job; what it made stays. No error when there is none."""
        await self._address.write("DELETE", "reembed", **options)
