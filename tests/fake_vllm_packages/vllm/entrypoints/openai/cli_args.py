"""Real vLLM's options are in a file of this name: `uds` in it says that it can listen on a Unix socket."""
