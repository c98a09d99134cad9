"""Adapters: a small number of trainable weights on a frozen encoder; importing registers the built-in ones."""

from gliner_pipe.modeling.adapters.base import Adapter, saving
from gliner_pipe.modeling.adapters.lora import Lora
from gliner_pipe.modeling.adapters.peft import Peft

__all__ = ["Adapter", "Lora", "Peft", "saving"]
