"""Tests against a real vLLM: `make test-vllm`. They are not collected otherwise."""
