"""Adapters: a few new weights beside a frozen encoder; importing this package registers the blocks it ships."""

from gliner_pipe.modeling.adapters.base import Adapter, saving
from gliner_pipe.modeling.adapters.lora import Lora
from gliner_pipe.modeling.adapters.peft import Peft

__all__ = ["Adapter", "Lora", "Peft", "saving"]
