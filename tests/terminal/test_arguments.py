from __future__ import annotations

import pytest

from sensorium.cli import main
from sensorium.terminal.arguments import normalise


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("serve --max_model_len 8", "serve --max-model-len 8"),
        ("serve --mm_processor_kwargs={a_b}", "serve --mm-processor-kwargs={a_b}"),
        ("serve m --served-model-name a b --port 1", "serve m --served-model-name a --served-model-name b --port 1"),
        ("serve --served_model_name=a m", "serve --served-model-name=a m"),
        ("serve --api-key a -h", "serve --api-key a -h"),
        ("run -- --a_b", "run -- --a_b"),
        ("serve --lora_modules a=x b=y --port 1", "serve --lora-modules a=x --lora-modules b=y --port 1"),
        ("serve m --merge_lora true --port 1", "serve m --merge-lora --port 1"),
        ("serve --merge_lora False m", "serve --no-merge-lora m"),
        ("serve --merge_lora m", "serve --merge-lora m"),
        ("serve --merge_lora=true m", "serve --merge-lora m"),
    ],
)
def test_spellings(written: str, read: str) -> None:
    assert normalise(written.split()) == read.split()


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("serve --port", "sensorium serve"),
        ("models register x --engine", "sensorium models register"),
        ("--nope", "sensorium"),
        ("run x --nope", "sensorium run"),
    ],
)
def test_a_wrong_use_names_the_help_of_its_command(
    arguments: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments.split())
    assert capsys.readouterr().err.endswith(f"See `{command} --help`.\n")
