"""Ask a server with the client functions of ms-swift 2.6, once whole and once streamed, with a history.

sensorium serve
python examples/swift_client.py --image docs/shapes.png
python examples/swift_client.py --image one.png --tag img     # the picture inside the question
python examples/swift_client.py --video clip.mp4
python examples/swift_client.py --audio weather.wav --question "What is said?" --question "Is it a man?"
"""

from __future__ import annotations

import argparse

from sensorium.llm import XRequestConfig, get_model_list_client, inference_client

QUESTIONS = ["What is in this picture?", "How many shapes are there?"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask a server about media, and then once more.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="8000")
    parser.add_argument("--image", action="append", help="File, URL or base64; a second one is for the second turn.")
    parser.add_argument("--video", action="append")
    parser.add_argument("--audio", action="append")
    parser.add_argument("--tag", choices=("list", "img"), default="list", help="Pictures beside the question or in it.")
    parser.add_argument("--question", action="append", help="Two of them.")
    parser.add_argument("--max-tokens", type=int, help="Longest answer; default: what the context leaves.")
    arguments = parser.parse_args()
    questions = arguments.question or QUESTIONS
    where = {"host": arguments.host, "port": arguments.port}
    media = {"images": arguments.image, "videos": arguments.video, "audios": arguments.audio}
    tag = next((f"<{kind[:-1]}>" for kind, items in media.items() if items), "")

    model = get_model_list_client(**where).data[0].id
    print(f"model_type: {model}")
    if arguments.tag == "img":
        query, media = f"<img>{arguments.image[0]}</img>{questions[0]}", {}
    else:
        query = tag + questions[0]
    first = {kind: items[:1] for kind, items in media.items() if items}
    config = XRequestConfig(temperature=0, max_tokens=arguments.max_tokens)
    answer = inference_client(model, query, **first, request_config=config, **where)
    response = answer.choices[0].message.content
    print(f"query: {questions[0]}\nresponse: {response}")

    more = any(len(items or ()) > 1 for items in media.values())
    config = XRequestConfig(stream=True, temperature=0, max_tokens=arguments.max_tokens)
    again = (tag if more else "") + questions[1]
    chunks = inference_client(model, again, [(query, response)], **media, request_config=config, **where)
    print(f"query: {questions[1]}\nresponse: ", end="")
    for chunk in chunks:
        print(chunk.choices[0].delta.content, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
