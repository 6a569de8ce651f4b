"""`python -m sensorium.entrypoints.openai.api_server --model ...`: `sensorium serve`."""

import sys

from sensorium.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
