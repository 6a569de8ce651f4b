"""`python -m sensorium.start_server`: a server from environment variables, as rtp-llm starts one."""

import sys

from sensorium.cli import main

if __name__ == "__main__":
    main(["start-server", *sys.argv[1:]])
