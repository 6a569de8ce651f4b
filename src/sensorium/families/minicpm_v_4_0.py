"""MiniCPM-V 4.0: as 2.6, but the decoder is a Llama."""

from __future__ import annotations

from functools import partial

from sensorium.families.decoder_config import read_decoder
from sensorium.families.family import Family
from sensorium.families.minicpm import encoder, rename
from sensorium.families.minicpm_image import image_media
from sensorium.families.minicpm_video import VIDEO

FAMILY = Family(
    name="minicpm_v_4_0",
    architectures=("MiniCPMV 4.0",),
    decoder=partial(read_decoder, attention_bias=False),
    rename=rename,
    media={"image": image_media(one_slice_tag=False), "video": VIDEO},
    encoders={"vision": encoder},
    end_tokens=("<|im_end|>", "</s>"),
)
