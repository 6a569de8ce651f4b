"""LoRA adapters in PEFT's layout: read, fitted to a model, merged into one. How they run is in `model/lora.py`."""
