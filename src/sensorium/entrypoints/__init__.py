"""Modules by the names they have in vLLM, for scripts in which only the package's name is changed."""
