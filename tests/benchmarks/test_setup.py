import sys
from pathlib import Path

import pytest
import setup


def test_an_arm_whose_step_fails_is_named_and_the_others_are_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[str] = []
    monkeypatch.setattr(setup, "WORK", tmp_path)
    monkeypatch.setattr(setup, "HERE", tmp_path)
    monkeypatch.setattr(setup, "_text_checkpoint", lambda: done.append("text"))
    monkeypatch.setattr(setup, "_vision_checkpoint", lambda: done.append("vision"))
    monkeypatch.setattr(setup, "_gguf", lambda: done.append("gguf"))
    monkeypatch.setattr(setup, "_llamacpp", lambda: done.append("llamacpp"))
    monkeypatch.setattr(setup, "_vllm", lambda: setup._run("probe", [sys.executable, "-c", "print('why'); exit(7)"]))
    failed = setup.prepare(["ours", "vllm", "llamacpp"], images=True)
    assert failed == {"vllm": "setup step probe ended with status 7; its output is in logs/setup-probe.log"}
    assert (tmp_path / "logs" / "setup-probe.log").read_text().strip() == "why"
    assert done == ["text", "vision", "text", "text", "llamacpp", "gguf"]
