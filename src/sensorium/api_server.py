"""`python -m sensorium.api_server --model ...`: `sensorium serve`, by the name that vLLM's server has as a module."""

import sys

from sensorium.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
