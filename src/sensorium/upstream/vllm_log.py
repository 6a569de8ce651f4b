"""What vLLM's log says: how far it is, how much it can keep, and why it did not start."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

# In the order in which vLLM 0.32 goes through them; a line that matches moves on, never back.
_PHASES = (
    ("starting vLLM", re.compile(r"\bnon-default args\b")),
    ("starting its engine", re.compile(r"Initializing a V1 LLM engine|Resolved architecture")),
    ("loading weights", re.compile(r"Starting to load model|Loading \w+ checkpoint shards")),
    ("compiling", re.compile(r"torch\.compile .*\b(takes|took)|Dynamo bytecode|Compiling a graph|Start compiling")),
    ("measuring memory", re.compile(r"[Mm]emory profiling|Available KV cache memory|KV cache size")),
    ("capturing graphs", re.compile(r"Capturing CUDA graph")),
    ("starting to listen", re.compile(r"Starting vLLM (API )?server|Application startup")),
)
_PERCENT = re.compile(r"\b(\d{1,3})%\s*(?:Completed\s*)?\|")
_KV_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_PREFIX = re.compile(r"^(?:\([^)]*pid=\d+\)\s*)?(?:[A-Z]+ \d\d-\d\d [\d:]+ \[[^\]]+\]\s*)?")
_REASON = re.compile(r"^(?:[\w.]*\.)?(\w*(?:Error|Exception|Interrupt))\b:?\s*(.*)|^(.*\berror: .+)")
# Errors that only say that another process failed.
_ELSEWHERE = re.compile(
    r"Engine core initialization failed|Engine process failed|WorkerProc (initialization )?failed|See root cause above|"
    r"EngineDeadError|cancelled|Failed core proc"
)
_KEPT = 400
_DETAILS = re.compile(r"\s*\[type=.*\]$|^For further information visit .*")


class VllmLog:
    """Reads the log line by line; called from one thread.

    Attributes:
        kv_cache_tokens: how many tokens its KV cache holds; 0 until it has said so.
    """

    def __init__(self, on_progress: Callable[[str, float], None]) -> None:
        self.kv_cache_tokens = 0
        self._on_progress = on_progress
        self._phase = -1
        self._lines: deque[str] = deque(maxlen=_KEPT)

    def read(self, line: str) -> None:
        """Take a line in."""
        text = _PREFIX.sub("", line).strip()
        if not text:
            return
        self._lines.append(text)
        if found := _KV_TOKENS.search(text):
            self.kv_cache_tokens = int(found[1].replace(",", ""))
        for number in range(len(_PHASES) - 1, max(self._phase, 0) - 1, -1):
            name, pattern = _PHASES[number]
            if pattern.search(text):
                percent = _PERCENT.search(text)
                self._phase = number
                self._on_progress(name, min(100, int(percent[1])) / 100 if percent else 0.0)
                return

    def reason(self) -> str:
        """Return the line that says why vLLM ended, as far as it can be told; else its last one."""
        lines = list(self._lines)
        causes = [text for number, line in enumerate(lines) if (text := _cause(line, lines[number + 1 :]))]
        own = [text for text in causes if not _ELSEWHERE.search(text)]
        found = own[-1] if own else causes[-1] if causes else lines[-1] if lines else "it said nothing"
        return found[:600].rstrip(". ")


def _cause(line: str, behind: list[str]) -> str | None:
    match = _REASON.match(line)
    if match is None:
        return None
    if match[3] is not None:
        return match[3]
    said = match[2]
    if match[1] == "ValidationError":  # pydantic: what is wrong stands two lines below
        more = [_DETAILS.sub("", text) for text in behind[:3]]
        said = next((text for text in more if text.startswith(("Value error", "Input should"))), said)
    return f"{match[1]}: {said}" if said else match[1]
