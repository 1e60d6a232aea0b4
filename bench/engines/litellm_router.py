"""litellm's Router, which knows the limit: the requests a minute of the definition, eight retries."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from bench.engine import work
from bench.engines import litellm_acompletion


class Engine(litellm_acompletion.Engine):
    def describe(self) -> str:
        return f"litellm {version('litellm')}, Router with the rpm of the limit, num_retries=8"

    async def open(self, ask: dict[str, Any]) -> None:
        await super().open(ask)
        deployment = {"model_name": work.MODEL, "litellm_params": self.where | {"rpm": ask["told_rpm"]}}
        self.router = self.litellm.Router(model_list=[deployment], num_retries=8)

    async def complete(self, **body: Any) -> Any:
        return await self.router.acompletion(model=work.MODEL, **body)
