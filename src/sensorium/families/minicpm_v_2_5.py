"""MiniCPM-Llama3-V 2.5: Llama 3 behind a SigLIP tower and 96 queries for the overview and each slice."""

from __future__ import annotations

from functools import partial

from sensorium.families.decoder_config import read_decoder
from sensorium.families.family import Family
from sensorium.families.minicpm import encoder_in_one_row, rename
from sensorium.families.minicpm_image import image_media

FAMILY = Family(
    name="minicpm_v_2_5",
    architectures=("MiniCPMV 2.5",),
    decoder=partial(read_decoder, attention_bias=False),
    rename=rename,
    media={"image": image_media(one_slice_tag=True)},
    encoders={"vision": encoder_in_one_row},
    end_tokens=("<|eot_id|>", "<|end_of_text|>"),  # the files name only the second, which ends no turn
)
