"""Templates are found, rendered like transformers renders them, and stopped when they run away."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import ConfigurationError, InvalidRequest
from sensorium.prompt.template import ChatTemplate
from tests.prompt import tiny

USER = [{"role": "user", "content": "hi"}]


def chat(source: str) -> ChatTemplate:
    return ChatTemplate({"default": source}, {"bos_token": "<s>", "eos_token": "</s>"})


TEMPLATES = [
    tiny.CHATML,
    tiny.QWEN_VL,
    "  {% if true %}\n  x\n  {% endif %}\n{{ bos_token }}{{ pad_token }}{{ unknown }}",
    "{{ {'b': '图<', 'a': [1, none, true]} | tojson }}{{ {'a': 1} | tojson(indent=2, sort_keys=true) }}",
    "{% for i in range(5) %}{% if i == 1 %}"
    "{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}!",
    "{% set ns = namespace(x=1) %}"
    "{% for m in messages %}{% set ns.x = ns.x + loop.index %}{% endfor %}{{ ns.x ~ 'y' ~ 2.5 }}",
    "{% macro f(a, b='z') %}[{{ a }}{{ b }}]{% endmacro %}{{ f(1) ~ f('q', b=messages[-1].role) }}",
    "{{ messages | map(attribute='role') | join(', ') | upper | replace('U', 'V') }}{{ 'a,b'.split(',')[::-1] }}",
    "{{ '%s-%d' | format('x', 3) }}{{ '{:>5}|'.format(7) }}{{ 'a' | center(5) }}{{ 'x' * 3 }}{{ 2 ** 5 }}{{ 7 % 4 }}",
    "{{ dict(a=1, b=[1, 2]) }}{{ messages | length }}{{ strftime_now('%Y')[:2] }}{{ documents is none }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}"
    "{% call m() %}{{ add_generation_prompt }}{% endcall %}{{ tools is none }}",
]


@pytest.mark.parametrize("source", TEMPLATES)
def test_rendering_equals_transformers(source: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    special = {"bos_token": "<s>", "eos_token": "</s>"}
    conversation = [*USER, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "ok\n"}]
    for add in (True, False):
        expected = render_jinja_template([conversation], chat_template=source, add_generation_prompt=add, **special)
        assert chat(source).render(conversation, add_generation_prompt=add) == expected[0][0]


@pytest.mark.parametrize("source", [tiny.CHATML, tiny.QWEN_VL, tiny.LLAMA2, "{{ messages[-1].content | trim }} end"])
@pytest.mark.parametrize(
    "content", ["so far", "so far  ", [{"type": "text", "text": "a"}, {"type": "text", "text": "b "}]]
)
def test_continue_final_message_equals_transformers(source: str, content: Any) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    if isinstance(content, list) and source != tiny.QWEN_VL:
        content = "plain"
    conversation = [*USER, {"role": "assistant", "content": content}]
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    expected = render_jinja_template([conversation], chat_template=source, continue_final_message=True, **special)
    ours = chat(source).render(conversation, add_generation_prompt=False, continue_final_message=True)
    assert ours == expected[0][0]
    assert conversation[-1]["content"] == content, "the caller's messages stay as they were"


def test_tools_equal_transformers() -> None:
    tools = [{"type": "function", "function": {"name": "看", "parameters": {"type": "object"}}}]
    expected = tiny.reference("qwen").apply_chat_template(USER, tools=tools, chat_template=tiny.CHATML, tokenize=False)
    assert chat(tiny.CHATML).render(USER, tools=tools, add_generation_prompt=False) == expected


BOMBS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}",
    "{% set x = 'aa' %}" + "{% set x = x ~ x %}" * 40,
    "{% set x = 'aa' %}" + "{% set x = x + x %}" * 40,
    "{% set x = ['a'] %}" + "{% set x = [x, x] %}" * 40 + "{{ x }}",
    "{% set x = ['a'] %}" + "{% set x = [x, x] %}" * 40 + "{{ x | tojson }}",
    "{{ 'a' * 10 ** 9 }}",
    "{{ range(10 ** 9) | list }}",
    "{{ 10 ** (10 ** 9) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ 'a' | center(10 ** 9) }}",
    "{{ 'a' | indent(10 ** 9) }}",
    "{{ 'a'.ljust(10 ** 10) }}",
    "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "{{ ([('a' * 1000000)] * 1000) | join }}",
    "{{ ''.join([('a' * 1000000)] * 1000) }}",
    "{{ [1] | tojson(indent=1000000000) }}",
]


@pytest.mark.parametrize("source", BOMBS)
def test_bombs_end_with_an_error(source: str) -> None:
    start = time.thread_time()
    with pytest.raises(InvalidRequest, match="was stopped"):
        chat(source).render(USER)
    assert time.thread_time() - start < 2.5


@pytest.mark.parametrize(
    "source", ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ lipsum() }}", "{{ f() }}"]
)
def test_the_sandbox_holds(source: str) -> None:
    with pytest.raises(InvalidRequest, match="fails on these messages"):
        chat(source).render(USER)


def test_a_templates_own_refusal_is_told() -> None:
    with pytest.raises(InvalidRequest, match="refuses these messages: roles must alternate"):
        chat("{{ raise_exception('roles must alternate') }}").render(USER)


def test_no_template_is_told_when_it_is_needed(tmp_path: Path) -> None:
    template = ChatTemplate.load(tmp_path, None, tiny.ours("qwen"))
    with pytest.raises(InvalidRequest, match="has no chat template"):
        template.render(USER)


def test_where_templates_are_found(tmp_path: Path) -> None:
    def text(override: str | None = None, **options: Any) -> str:
        return ChatTemplate.load(tmp_path, override, tiny.ours("qwen")).render(USER, **options)

    named = [{"name": "default", "template": "listed"}, {"name": "tool_use", "template": "tools"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert (text(), text(tools=[{"a": 1}])) == ("listed", "tools")
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    assert text() == "json"
    (tmp_path / "chat_template.jinja").write_text("jinja")
    assert text() == "jinja"
    (tmp_path / "mine.jinja").write_text("file")
    assert text(str(tmp_path / "mine.jinja")) == "file"
    assert text("{{ eos_token }}") == "<|im_end|>"
    with pytest.raises(ConfigurationError, match=r"gone\.jinja' cannot be read"):
        text(str(tmp_path / "gone.jinja"))
    with pytest.raises(ConfigurationError, match=r"not valid jinja \(line 2\)"):
        text("\n{% if %}")
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        text("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")


def test_what_content_a_template_takes() -> None:
    only_parts = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    raising = (
        "{% if messages[0].content is not string %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    )
    expected = {
        tiny.CHATML: (True, False),
        tiny.QWEN_VL: (True, True),
        only_parts: (False, True),
        raising: (True, False),
    }
    expected["{{ messages[0].content }}"] = (True, False)
    for source, (text, parts) in expected.items():
        assert (chat(source).takes_text, chat(source).takes_parts) == (text, parts)
    assert chat(tiny.QWEN_VL).writes_media("image")
    assert not chat(tiny.QWEN_VL).writes_media("audio")
    assert chat(tiny.QWEN_VL).media_part("audio") is None
    by_key = "{% for p in messages[0].content %}{{ '<a>' if 'audio_url' in p else p.text }}{% endfor %}"
    assert not chat(by_key).writes_media("audio")
    assert chat(by_key).media_part("audio") == {"type": "audio", "audio_url": ""}
