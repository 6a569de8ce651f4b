"""Adapters behind a real server: by name, mixed, loaded and unloaded while it serves, merged, and broken ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from sensorium import LLM, LoRARequest, SamplingParams
from sensorium.errors import ConfigurationError, InvalidRequest
from tests.checkpoints import make_checkpoint
from tests.e2e.running import Running, serve
from tests.lora.writing import decoder_layers, write_adapter

GREEDY = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
QUESTION = [{"role": "user", "content": "What is red?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, adapters a, b and c of it, one of another family, and a damaged one."""
    path = tmp_path_factory.mktemp("lora")
    make_checkpoint("qwen2_vl", path / "base")
    make_checkpoint("qwen3", path / "other")  # with wider heads
    layers = decoder_layers(path / "base", "q_proj", "v_proj", "up_proj")
    for seed, name in enumerate("abc"):
        write_adapter(path / "adapters" / name, path / "base", layers, seed=seed)
    write_adapter(path / "adapters" / "foreign", path / "other", decoder_layers(path / "other", "q_proj"))
    shutil.copytree(path / "adapters" / "a", path / "adapters" / "cut")
    weights = path / "adapters" / "cut" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    return path


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    module = json.dumps({"name": "b", "path": str(folder / "adapters" / "b")})
    arguments = [str(folder / "base"), "--served-model-name", "base", "--dtype", "float32", "--enable-lora"]
    arguments += ["--lora-modules", f"a={folder / 'adapters' / 'a'}", module, "--max-loras", "2"]
    arguments += ["--allowed-lora-path", str(folder / "adapters")]
    with serve(arguments, folder / "home") as started:
        yield started


def answer(running: Running, model: str, seed: int = 0) -> str:
    extra = {"ignore_eos": True, "cache_salt": str(seed)}
    reply = running.client().chat.completions.create(
        model=model, messages=QUESTION, max_tokens=10, temperature=0, extra_body=extra
    )
    assert reply.model == model
    return reply.choices[0].message.content or ""


def post(running: Running, path: str, **body: object) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/{path}", json=body, timeout=60)


def test_names_answer_with_their_adapters_alone_and_together(running: Running, folder: Path) -> None:
    with LLM(str(folder / "base"), dtype="float32", enable_lora=True, max_loras=1) as llm:
        requests = [None, *(LoRARequest(name, 1, str(folder / "adapters" / name)) for name in "ab")]
        wanted = [llm.chat(QUESTION, GREEDY, use_tqdm=False, lora_request=one)[0].outputs[0].text for one in requests]
        together = llm.chat([QUESTION] * 3, [GREEDY] * 3, use_tqdm=False, lora_request=requests)
        assert [output.outputs[0].text for output in together] == wanted
        assert llm.generate("red", GREEDY, lora_request=requests[1]) != llm.generate("red", GREEDY)
        with pytest.raises(InvalidRequest, match="one for each of the 1 prompts"):
            llm.chat(QUESTION, GREEDY, lora_request=requests)
    assert len(set(wanted)) == 3
    assert [answer(running, name) for name in ("base", "a", "b")] == wanted
    names = ["base", "a", "b"] * 5
    with ThreadPoolExecutor(15) as threads:
        found = list(threads.map(lambda pair: answer(running, *pair), zip(names, range(15), strict=True)))
    assert found == wanted * 5


def test_adapters_are_listed_with_root_and_parent(running: Running, folder: Path) -> None:
    cards = {card["id"]: card for card in httpx.get(f"{running.url}/v1/models").json()["data"]}
    assert list(cards)[:3] == ["base", "a", "b"]
    assert cards["base"]["parent"] is None
    assert cards["base"]["root"] == str(folder / "base")
    assert (cards["b"]["root"], cards["b"]["parent"]) == (str(folder / "adapters" / "b"), "base")
    assert httpx.get(f"{running.url}/v1/models/a").json()["parent"] == "base"


def test_loading_and_unloading_while_serving(running: Running, folder: Path) -> None:
    with pytest.raises(openai.NotFoundError, match="'c' does not exist"):
        answer(running, "c")
    reply = post(running, "load_lora_adapter", lora_name="c", lora_path=str(folder / "adapters" / "c"))
    assert (reply.status_code, reply.text) == (200, "Success: LoRA adapter 'c' added successfully.")
    wanted = answer(running, "c")
    assert wanted not in (answer(running, "base"), answer(running, "a"))
    twice = post(running, "load_lora_adapter", lora_name="c", lora_path="c")
    assert twice.status_code == 400
    assert "has already been loaded" in twice.json()["error"]["message"]
    assert post(running, "load_lora_adapter", lora_name="c", lora_path="a", load_inplace=True).status_code == 200
    assert answer(running, "c") == answer(running, "a")
    assert post(running, "load_lora_adapter", lora_name="c", lora_path="c", load_inplace=True).status_code == 200
    assert answer(running, "c") == wanted  # by the path below the root
    running.worker().kill()
    running.until("a new worker", lambda: httpx.get(f"{running.url}/ready").status_code == 200)
    assert answer(running, "c") == wanted
    reply = post(running, "unload_lora_adapter", lora_name="c")
    assert (reply.status_code, reply.text) == (200, "Success: LoRA adapter 'c' removed successfully.")
    assert post(running, "unload_lora_adapter", lora_name="c").status_code == 404
    with pytest.raises(openai.NotFoundError):
        answer(running, "c")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"lora_name": "x"}, 400, "Both 'lora_name' and 'lora_path' must be provided."),
        ({"lora_name": "base", "lora_path": "a"}, 400, "conflicts with a served base model"),
        ({"lora_name": "x", "lora_path": "missing"}, 404, "No adapter found for missing"),
        ({"lora_name": "x", "lora_path": "../base"}, 403, "must lie below"),
        ({"lora_name": "x", "lora_path": "/etc"}, 403, "must lie below"),
        ({"lora_name": "x", "lora_path": "a", "base_model_name": "y"}, 400, "base_model_name must name the model"),
        ({"lora_name": "x", "lora_path": "foreign"}, 400, "model.layers.0.self_attn.q_proj (lora_A"),
        ({"lora_name": "x", "lora_path": "cut"}, 400, "damaged or cut short"),
    ],
)
def test_what_cannot_be_loaded_is_refused_and_the_server_stays_up(
    body: dict[str, object], status: int, words: str, running: Running
) -> None:
    worker = running.worker().pid
    reply = post(running, "load_lora_adapter", **body)
    assert reply.status_code == status, reply.text
    assert words in reply.json()["error"]["message"]
    assert answer(running, "a")
    assert running.worker().pid == worker


def test_without_the_operators_leave_nothing_is_loaded(folder: Path) -> None:
    with serve([str(folder / "base"), "--served-model-name", "base", "--no-preload"], folder / "home") as running:
        for path in ("load_lora_adapter", "unload_lora_adapter"):
            reply = post(running, path, lora_name="a", lora_path=str(folder / "adapters" / "a"))
            assert reply.status_code == 403
            assert "--allowed-lora-path" in reply.json()["error"]["message"]


def test_an_adapters_folder_is_served_and_merged(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "checkpoint-10"
    shutil.copytree(folder / "adapters" / "a", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/gone/base"}))
    notes = {"model_id_or_path": str(folder / "base"), "sft_type": "lora", "model_type": "qwen2-vl-7b-instruct"}
    (adapter / "sft_args.json").write_text(json.dumps(notes))
    with serve([str(adapter), "--served-model-name", "x", "--dtype", "float32"], folder / "home") as running:
        cards = httpx.get(f"{running.url}/v1/models").json()["data"]
        assert [card["id"] for card in cards] == ["x", "default-lora"]
        assert (cards[1]["root"], cards[1]["parent"]) == (str(adapter), str(folder / "base"))
        wanted = answer(running, "x")
        assert answer(running, "default-lora") == wanted
    with serve([str(adapter), "--merge_lora", "true", "--dtype", "float32"], folder / "home") as running:
        merged = f"{adapter}-merged"
        assert [card["id"] for card in httpx.get(f"{running.url}/v1/models").json()["data"]] == [merged]
        assert answer(running, merged) == wanted
    assert json.loads((Path(merged) / "sft_args.json").read_text())["sft_type"] == "full"


def test_a_broken_adapter_at_start_ends_the_start_with_its_name(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="damaged or cut short"):
        LLM(str(folder / "base"), lora_modules={"cut": str(folder / "adapters" / "cut")})
    command = [sys.executable, "-m", "sensorium", "serve", str(folder / "base"), "--lora-modules", "x=/nowhere"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "the adapter 'x': there is no folder '/nowhere'" in ended.stderr
