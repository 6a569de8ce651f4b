"""Image requests to any OpenAI-compatible server.  python arm_http.py http://127.0.0.1:PORT

Three things: one picture, new and then again with another question; many new pictures at once; and the gaps
between the pieces of a text stream while a new picture comes in every few seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import random
import time
from typing import Any, NamedTuple

import httpx
from engines import NUM_CONCURRENT
from measure import tell
from PIL import Image, ImageDraw

SIDE = 448  # pixels: 196 tokens
NEW_TOKENS = 32
IMAGE_EVERY_S = 2.0  # while the text stream runs
MAX_IN_FLIGHT = 4  # pictures beside it; a server that cannot keep up is not buried under them
STORY = "Tell a long story about a river, a town beside it and the people who live there, year after year."

_seeds = itertools.count(1)


class Reply(NamedTuple):
    """One streamed answer: when its pieces of text came, in seconds after the request, and its usage."""

    pieces: list[float]
    num_tokens: int


class Client:
    """Streams chat completions of one model."""

    def __init__(self, http: httpx.AsyncClient, model: str) -> None:
        self.http = http
        self.model = model

    async def ask(self, content: str | list[dict[str, Any]], max_tokens: int) -> Reply:
        """Send one user message and read the stream to its end."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        pieces: list[float] = []
        num_tokens = 0
        start = time.perf_counter()
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise RuntimeError(f"status {response.status_code}: {(await response.aread())[:500]!r}")
            async for line in response.aiter_lines():
                if not line.startswith("data:") or line.endswith("[DONE]"):
                    continue
                chunk = json.loads(line[5:])
                if any(choice["delta"].get("content") for choice in chunk["choices"]):
                    pieces.append(time.perf_counter() - start)
                if usage := chunk.get("usage"):
                    num_tokens = usage["completion_tokens"]
        if num_tokens != max_tokens:
            raise RuntimeError(f"asked for {max_tokens} tokens, got {num_tokens}")
        return Reply(pieces, num_tokens)

    async def ask_about(self, picture: str, question: str = "What is in the picture?") -> Reply:
        """Ask about a picture given as a data: URL."""
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": question},
        ]
        return await self.ask(content, NEW_TOKENS)


def new_picture() -> str:
    """A JPEG nobody has seen, as a data: URL."""
    chance = random.Random(next(_seeds))

    def colour() -> tuple[int, int, int]:
        return chance.randrange(256), chance.randrange(256), chance.randrange(256)

    image = Image.new("RGB", (SIDE, SIDE), colour())
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = chance.randrange(SIDE - 48), chance.randrange(SIDE - 48)
        draw.rectangle((x, y, x + chance.randrange(8, 60), y + chance.randrange(8, 60)), fill=colour())
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


async def one_by_one(client: Client, count: int) -> None:
    """Time to first token of `count` new pictures, then of the same ones with another question."""
    pictures = [new_picture() for _ in range(count)]
    for picture in pictures:
        tell("image_first", ttft_seconds=(await client.ask_about(picture)).pieces[0])
    for i, picture in enumerate(pictures):
        reply = await client.ask_about(picture, f"And now, another question: how many boxes are there, {i}?")
        tell("image_again", ttft_seconds=reply.pieces[0])


async def at_once(client: Client, count: int) -> None:
    """`count` new pictures in flight together."""
    pictures = [new_picture() for _ in range(count)]
    start = time.perf_counter()
    replies = await asyncio.gather(*(client.ask_about(picture) for picture in pictures))
    seconds = time.perf_counter() - start
    ttft = sum(reply.pieces[0] for reply in replies) / count
    tell(
        "images_at_once",
        count=count,
        seconds=seconds,
        tokens=sum(reply.num_tokens for reply in replies),
        mean_ttft_seconds=ttft,
    )


async def stream_beside_images(client: Client, max_tokens: int) -> None:
    """Gaps between the pieces of one text stream; new pictures come in every few seconds until it ends."""
    stream = asyncio.create_task(client.ask(STORY, max_tokens))
    images: list[asyncio.Task[Reply]] = []
    while not stream.done():
        if sum(not task.done() for task in images) < MAX_IN_FLIGHT:
            images.append(asyncio.create_task(client.ask_about(new_picture())))
        await asyncio.wait([stream], timeout=IMAGE_EVERY_S)
    pieces = (await stream).pieces
    num_answered = sum(task.done() for task in images)
    await asyncio.gather(*images)
    gaps = [later - earlier for earlier, later in itertools.pairwise(pieces)]
    tell("stream", gaps_seconds=gaps, tokens=max_tokens, images_sent=len(images), images_answered=num_answered)


async def main() -> None:
    """Warm up with text and a picture, then measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base_url")
    parser.add_argument("--images", type=int, default=5, help="pictures asked about one by one")
    parser.add_argument("--rounds", type=int, default=2, help="how often 16 pictures go at once")
    parser.add_argument("--stream-tokens", type=int, default=300)
    args = parser.parse_args()
    async with httpx.AsyncClient(base_url=args.base_url, timeout=600, trust_env=False) as http:
        models = (await http.get("/v1/models")).json()["data"]
        client = Client(http, models[0]["id"])
        await client.ask(STORY, 8)
        await asyncio.gather(*(client.ask_about(new_picture()) for _ in range(2)))
        await one_by_one(client, args.images)
        for _ in range(args.rounds):
            await at_once(client, NUM_CONCURRENT)
        await stream_beside_images(client, args.stream_tokens)


if __name__ == "__main__":
    asyncio.run(main())
