from pathlib import Path

from tokenizer_files import NUM_BASE, write_tokenizer
from tokenizers import Tokenizer


def test_control_tokens_have_qwens_ids_and_every_word_is_one_piece(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids = {"<|endoftext|>": 151643, "<|im_end|>": 151645, "<|vision_start|>": 151652, "<|image_pad|>": 151655}
    assert {text: tokenizer.token_to_id(text) for text in ids} == ids
    assert tokenizer.encode("<|im_end|>").ids == [151645]
    text = "What is in the picture? 你好\n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.decode([NUM_BASE - 1, 100_000]) == f" w{NUM_BASE - 1} w100000"
