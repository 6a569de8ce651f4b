"""Stands for vLLM where a test needs its processes and its HTTP, but no model."""
