"""rtp-llm's Pipeline: a raw prompt with pictures in, the answer so far out, again and again until it is complete."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from sensorium.errors import InvalidRequest
from sensorium.pipeline.results import GenerateResponse, Progress
from sensorium.protocol.body import parse_body
from sensorium.protocol.parsed import Parsed
from sensorium.protocol.rtp import RawBody, parse_raw

if TYPE_CHECKING:
    from sensorium.auto_tokenizer import AutoTokenizer
    from sensorium.model_factory import PipelineModel

__all__ = ["GenerateResponse", "Pipeline"]

_numbers = itertools.count()


class Pipeline:
    """A loaded model that continues raw prompts.

        model = ModelFactory.from_huggingface("Qwen/Qwen-VL-Chat")
        pipeline = Pipeline(model, model.tokenizer)
        for result in pipeline("Picture 1:<img/>\\nWhat is this?", urls=["https://..."]):
            print(result.batch_response)
        pipeline.stop()

    No chat template is used, and control tokens written in the prompt count. A picture's place is `<img/>` or
    `<image>`, one for each address, or `<img>address</img>`, which needs no `urls`.
    """

    def __init__(self, model: PipelineModel, tokenizer: AutoTokenizer | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer or model.tokenizer

    def __call__(
        self,
        prompt: str | Sequence[str],
        urls: Sequence[Any] | None = None,
        generate_config: Mapping[str, Any] | None = None,
        *,
        images: Sequence[Any] | None = None,
        **options: Any,
    ) -> Generator[GenerateResponse, None, None]:
        """Answer one prompt; yield after every step all that was said so far.

        Args:
            prompt: text, or a list of one.
            urls: addresses of pictures: http(s), data:, base64, or paths below the folder that the model was loaded
                with as `allowed_local_media_path`.
            generate_config: max_new_tokens, top_k, stop_words_str, return_incremental, ...; `options` are the same.
                Defaults are rtp-llm's: 1000 tokens, top_p 0.95, temperature 1.
            images: another name of `urls`.

        Raises:
            InvalidRequest: tags and pictures differ in number, or an option is out of range; `param` names it.
            MediaError: a picture cannot be had.
        """
        config = {**(generate_config or {}), **options}
        given = {"prompt": prompt, "urls": urls, "images": images, "generate_config": config, "yield_generator": True}
        body = parse_body(RawBody, msgspec.json.encode({name: value for name, value in given.items() if value}))
        asked = parse_raw(body, self.model.name, f"pipeline-{next(_numbers)}")
        if len(asked.prompts) != 1:
            raise InvalidRequest(
                f"A pipeline answers one prompt at a time, not {len(asked.prompts)}; many at once: LLM.generate.",
                param="prompt",
            )
        parsed = asked.prompts[0]
        return self._results(parsed, Progress(parsed.request.sampling.n, asked.incremental))

    def encode(self, prompt: str) -> list[int]:
        """Return the ids of a text."""
        return self.tokenizer.encode(prompt)

    def decode(self, token_id: int) -> str:
        """Return the text of an id."""
        return self.tokenizer.decode([token_id])

    def stop(self) -> None:
        """Free the model."""
        self.model.stop()

    def _results(self, parsed: Parsed, progress: Progress) -> Generator[GenerateResponse, None, None]:
        with closing(self.model.llm.stream_events(parsed)) as events:
            for event in events:
                result = progress.take(event)
                if result is not None:
                    yield result
