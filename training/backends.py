"""Who answers in the evaluation: transformers, or the package's own engine."""

from pathlib import Path

import torch

from . import fastvision, pixels, tokenizer


class Transformers:
    """Greedy answers from transformers, many questions at once."""

    def __init__(self, checkpoint, batch=64):
        from tokenizers import Tokenizer
        from transformers import Qwen3VLForConditionalGeneration

        fastvision.enable()
        self.tok = Tokenizer.from_file(str(Path(checkpoint) / "tokenizer.json"))
        self.net = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.batch = batch
        self.pad_image = self.tok.token_to_id("<|image_pad|>")
        self.end = self.tok.token_to_id("<|im_end|>")

    def _prepare(self, messages):
        import jinja2

        images = [
            pixels.resize(p["image"])
            for m in messages
            if isinstance(m["content"], list)
            for p in m["content"]
            if p["type"] == "image"
        ]
        text = jinja2.Template(tokenizer.TEMPLATE).render(messages=messages, add_generation_prompt=True)
        pieces = text.split("<|image_pad|>")
        full = pieces[0]
        for image, piece in zip(images, pieces[1:], strict=True):
            _, h, w = pixels.grid(image)
            full += "<|image_pad|>" * (h * w // 4) + piece
        return self.tok.encode(full, add_special_tokens=False).ids, images

    @torch.inference_mode()
    def answer(self, conversations) -> list[str]:
        prepared = [self._prepare(m) for m in conversations]
        order = sorted(range(len(prepared)), key=lambda i: len(prepared[i][0]))
        results = [""] * len(prepared)
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            length = max(len(prepared[i][0]) for i in part)
            ids = torch.zeros(len(part), length, dtype=torch.long)
            mask = torch.zeros_like(ids)
            images = []
            for row, i in enumerate(part):
                n = len(prepared[i][0])
                ids[row, length - n :] = torch.tensor(prepared[i][0])
                mask[row, length - n :] = 1
                images += prepared[i][1]
            extra = {}
            if images:
                extra = {
                    "pixel_values": torch.cat([pixels.frames(im) for im in images]),
                    "image_grid_thw": torch.tensor([pixels.grid(im) for im in images]),
                    "mm_token_type_ids": (ids == self.pad_image).int(),
                }
            out = self.net.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=110,
                eos_token_id=self.end,
                pad_token_id=0,
                **extra,
            )
            for row, i in enumerate(part):
                results[i] = self.tok.decode(out[row, length:].tolist(), skip_special_tokens=True)
        return results


class Sensorium:
    """The package's own engine, as it comes: the checkpoint's dtype and sampling defaults."""

    def __init__(self, checkpoint):
        from sensorium import LLM

        self.llm = LLM(str(checkpoint), num_threads=torch.get_num_threads())

    def answer(self, conversations) -> list[str]:
        from sensorium import SamplingParams

        greedy = SamplingParams(temperature=0, max_tokens=110)
        return [result.outputs[0].text for result in self.llm.chat(conversations, greedy, use_tqdm=False)]


BACKENDS = {"transformers": Transformers, "sensorium": Sensorium}
