"""`python -m sensorium.worker.service`: `sensorium worker`, by the name that serverless_vllm's worker has as a module.

As there, the gateway is the one of `start_ray_services.py`, unless MANAGER_URL says otherwise.
"""

import os
import sys

from sensorium.cli import main
from sensorium.environment import names

MANAGER_URL = "http://127.0.0.1:18000"

if __name__ == "__main__":
    if not any(os.environ.get(name) for name in names("SENSORIUM_MANAGER_URL")):
        os.environ["SENSORIUM_MANAGER_URL"] = MANAGER_URL
    main(["worker", *sys.argv[1:]])
