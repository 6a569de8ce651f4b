"""MiniCPM-V 2.6: Qwen2 behind a SigLIP tower and 64 queries for the overview and each slice; pictures are numbered."""

from __future__ import annotations

from functools import partial

from sensorium.families.decoder_config import read_decoder
from sensorium.families.family import Family
from sensorium.families.minicpm import encoder, rename
from sensorium.families.minicpm_image import image_media
from sensorium.families.minicpm_video import VIDEO

FAMILY = Family(
    name="minicpm_v_2_6",
    architectures=("MiniCPMV 2.6",),
    decoder=partial(read_decoder, attention_bias=True),
    rename=rename,
    media={"image": image_media(one_slice_tag=False), "video": VIDEO},
    encoders={"vision": encoder},
    end_tokens=("<|im_end|>", "<|endoftext|>"),
)
