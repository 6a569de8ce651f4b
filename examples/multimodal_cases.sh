#!/usr/bin/env bash
# The requests of multimodal_cases.py with curl.
#
#     sensorium serve --allow-private-media     # the pictures are served from this machine
#     examples/multimodal_cases.sh
#
# BASE_URL, MODEL, IMAGE_URL and IMAGE2_URL choose others; PICTURE_PORT is where the pictures are served (0: nowhere).
set -euo pipefail

docs="$(cd "$(dirname "$0")/.." && pwd)/docs"
base_url="${BASE_URL:-http://127.0.0.1:8000/v1}"
port="${PICTURE_PORT:-18080}"
image_url="${IMAGE_URL:-http://127.0.0.1:$port/shapes.png}"
image2_url="${IMAGE2_URL:-http://127.0.0.1:$port/star.png}"

if [ "$port" != 0 ]; then
    python3 -m http.server "$port" --bind 127.0.0.1 --directory "$docs" >/dev/null 2>&1 &
    pictures=$!
    trap 'kill "$pictures"' EXIT
    curl --silent --retry 20 --retry-delay 1 --retry-connrefused --output /dev/null "http://127.0.0.1:$port/shapes.png"
fi

model="${MODEL:-$(curl --silent --fail "$base_url/models" | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["id"])')}"

ask() { # NAME, then the message's content as JSON on standard input
    printf '%s: ' "$1"
    { printf '{"model": "%s", "max_tokens": 512, "messages": [{"role": "user", "content": ' "$model"; cat; printf '}]}'; } |
        curl --silent --show-error --fail-with-body "$base_url/chat/completions" \
            -H 'Content-Type: application/json' --data-binary @- |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["message"]["content"])'
}

ask "1. one picture by URL" <<JSON
[{"type": "image_url", "image_url": {"url": "$image_url"}}, {"type": "text", "text": "What is in this picture?"}]
JSON

ask "2. two pictures by URL" <<JSON
[{"type": "image_url", "image_url": {"url": "$image_url"}}, {"type": "image_url", "image_url": {"url": "$image2_url"}},
 {"type": "text", "text": "What is in the second picture?"}]
JSON

ask "3. text only" <<JSON
"Who are you?"
JSON

ask "4. a file as base64" <<JSON
[{"type": "text", "text": "这张图里有什么？"},
 {"type": "image_url", "image_url": {"url": "data:image/png;base64,$(base64 -w0 "$docs/shapes.png")"}}]
JSON
