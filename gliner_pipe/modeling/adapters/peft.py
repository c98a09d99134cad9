"""Any method of the `peft` library that adds weights to layers."""

from __future__ import annotations

from typing import Any, Literal

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.adapters.base import Adapter, Form
from gliner_pipe.modeling.adapters.targets import target_pattern
from gliner_pipe.modeling.adapters.wrapping import options_of, own_targets, peft_config
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Amount


@registry.adapters.register("peft")
class Peft(Adapter):
    """An adapter by the name of its method in `peft`: ``ia3``, ``loha``, ``lokr``, ``oft``, ``vera``, ``adalora`` ...

    ``ia3`` is the smallest, with one factor per channel. For LoRA use ``lora``, which checks its settings.

    Parameters
    ----------
    method
        Name of the method: a ``PeftType`` of `peft`, in lower case.
    target_modules
        Modules to adapt: suffixes of their names, or a regular expression for whole names. By default all linear
        modules in the layers; for ``ia3`` those of its authors, and for ``ln_tuning`` the normalisation modules.
    layers, save
        As in ``lora``.
    options
        Arguments of the method's configuration class in `peft`, such as ``{"r": 8}``.
    """

    def __init__(
        self,
        method: str,
        target_modules: list[str] | str | None = None,
        layers: list[Amount] | None = None,
        save: Form = "full",
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.target_modules, self.layers = target_modules, layers
        self.options = options
        self.save = save

    def config(self, encoder: Any, where: str) -> Any:
        """Return the configuration of the method for an encoder."""
        options = dict(self.options or {})
        known = options_of(self.method, where)
        if "target_modules" in known:
            chosen = self.target_modules is not None or self.layers is not None
            if chosen or not own_targets(self.method, encoder):
                kind: Literal["linear", "norm"] = "norm" if self.method.lower() == "ln_tuning" else "linear"
                options["target_modules"] = target_pattern(
                    encoder, self.target_modules, self.layers, where, kind
                )
                if "feedforward_modules" in known:
                    options.setdefault("feedforward_modules", [])
        elif self.target_modules is not None or self.layers is not None:
            name = "layers" if self.target_modules is None else "target_modules"
            raise ConfigError(
                f"{where}.{name}", f"is set, but {self.method!r} does not take target modules", "null"
            )
        return peft_config(self.method, where, **options)
