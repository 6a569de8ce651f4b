"""Engine kinds that are another server: `vllm`, a process of it that belongs to the worker, and `remote`, a URL."""
