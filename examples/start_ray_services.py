"""Start a service without a model, whose workers Ray places; models are registered while it runs.

    python3 examples/start_ray_services.py                # port 18000, on every address

    curl -X POST http://localhost:18000/v1/models/register -H 'Content-Type: application/json' -d '{
      "alias": "qwen-vl-2b", "model_name": "Qwen/Qwen3-VL-2B-Instruct", "max_model_len": 8192,
      "gpu_memory_utilization": 0.5}'

It joins the Ray cluster of this machine (or of RAY_ADDRESS, host:port), or starts one. Options of `sensorium serve` may
follow. A worker on a machine without Ray joins with `python -m sensorium.worker.service`; see docs/cluster.md.
"""

from __future__ import annotations

import sys

from sensorium.cli import main

if __name__ == "__main__":
    main(["serve", "--no-model", "--cluster", "ray", "--host", "0.0.0.0", "--port", "18000", *sys.argv[1:]])
