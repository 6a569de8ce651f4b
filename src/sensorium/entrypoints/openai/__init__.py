"""The server, where vLLM has it."""
