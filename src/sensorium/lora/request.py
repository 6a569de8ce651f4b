"""Which adapter a call of the offline API uses. Names are vLLM's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sensorium.errors import InvalidRequest
from sensorium.types import Adapter


@dataclass(frozen=True)
class LoRARequest:
    """An adapter: its name, a number (vLLM tells adapters apart by it; here name and folder do), its folder."""

    lora_name: str
    lora_int_id: int = 0
    lora_path: str = ""
    base_model_name: str | None = None

    def __post_init__(self) -> None:
        if not self.lora_name or not self.lora_path:
            raise InvalidRequest("A LoRARequest needs lora_name and lora_path.", param="lora_request")


LoraRequests = LoRARequest | Sequence[LoRARequest | None] | None


def adapters_of(given: LoraRequests, count: int) -> list[Adapter | None]:
    """Return the adapter of each of `count` prompts; one counts for all.

    Raises:
        InvalidRequest: it is something else, or there are more or fewer than prompts.
    """
    several = [given] * count if given is None or isinstance(given, LoRARequest) else given
    right = isinstance(several, Sequence) and all(one is None or isinstance(one, LoRARequest) for one in several)
    if not right or len(several) != count:
        raise InvalidRequest(
            f"lora_request must be a LoRARequest, or one for each of the {count} prompts.", param="lora_request"
        )
    return [None if one is None else Adapter(one.lora_name, one.lora_path) for one in several]
