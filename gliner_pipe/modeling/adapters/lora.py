"""LoRA: what a weight matrix learns is a product of two thin ones."""

from __future__ import annotations

from typing import Any, Literal

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.adapters.base import Adapter, Form
from gliner_pipe.modeling.adapters.targets import target_pattern
from gliner_pipe.modeling.adapters.wrapping import peft_config
from gliner_pipe.registry import registry

_BOUNDS = {"r": "1 or more", "alpha": "more than 0", "dropout": "0 to less than 1"}


@registry.adapters.register("lora")
class Lora(Adapter):
    """Low-rank adaptation, the first choice among adapters.

    Needs higher learning rates than the training of all weights: start with ``transformer_lr = 2e-4``.

    Parameters
    ----------
    r
        Rank: width of the thin matrices. More learn more and cost more.
    alpha
        What is learnt is scaled by ``alpha / r``.
    dropout
        Dropout of what goes into the adapter.
    target_modules
        Linear layers that get one: ends of their names (``["query", "value"]``), or a regular expression for the
        whole name. By default all of each layer: attention and feed-forward, whatever the architecture calls them.
    layers
        Numbers of the layers that get one, from 0; all by default.
    bias
        Whether biases learn: ``none``, ``all`` of the encoder, or ``lora_only``, those of the layers with an adapter.
    use_dora
        Learn the length of each column apart from its direction (DoRA): closer to full training at low ranks, slower.
    use_rslora
        Scale by ``alpha / sqrt(r)``, for high ranks.
    init
        How it starts: ``default`` (nothing changes at first), ``gaussian`` and ``orthogonal`` likewise, ``pissa`` and
        ``olora`` from the main parts of the weights, which change the base and so cannot be saved apart from it.
    save
        ``full``, ``adapter`` or ``merged``; see :class:`Adapter`.

    Notes
    -----
    Source: Hu et al. (2021), arXiv:2106.09685; DoRA: Liu et al. (2024), arXiv:2402.09353.
    """

    def __init__(
        self,
        r: int = 16,
        alpha: float = 32,
        dropout: float = 0.05,
        target_modules: list[str] | str | None = None,
        layers: list[int] | None = None,
        bias: Literal["none", "all", "lora_only"] = "none",
        use_dora: bool = False,
        use_rslora: bool = False,
        init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = "default",
        save: Form = "full",
    ) -> None:
        super().__init__()
        self.r, self.alpha, self.dropout = r, alpha, dropout
        self.target_modules, self.layers = target_modules, layers
        self.bias = bias
        self.use_dora, self.use_rslora = use_dora, use_rslora
        self.init = init
        self.save = save

    def config(self, encoder: Any, where: str) -> Any:
        """Return a ``LoraConfig`` for an encoder."""
        wrong = {"r": self.r < 1, "alpha": self.alpha <= 0, "dropout": not 0 <= self.dropout < 1}
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            raise ConfigError(f"{where}.{name}", f"found {getattr(self, name)}", _BOUNDS[name])
        return peft_config(
            "lora",
            where,
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=target_pattern(encoder, self.target_modules, self.layers, where),
            bias=self.bias,
            use_dora=self.use_dora,
            use_rslora=self.use_rslora,
            init_lora_weights=True if self.init == "default" else self.init,
        )
