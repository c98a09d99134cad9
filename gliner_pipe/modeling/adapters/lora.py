"""LoRA: the update of a weight matrix is a product of two low-rank matrices."""

from __future__ import annotations

from typing import Any, Literal

from gliner_pipe.modeling.adapters.base import Adapter, Form
from gliner_pipe.modeling.adapters.targets import target_pattern
from gliner_pipe.modeling.adapters.wrapping import peft_config
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Amount, Positive, Rate, Size


@registry.adapters.register("lora")
class Lora(Adapter):
    """Low-rank adaptation, the recommended adapter.

    It needs a higher learning rate than training all weights: start with ``transformer_lr = 2e-4``.

    Parameters
    ----------
    r
        Rank of the update. A higher rank has more capacity and costs more.
    alpha
        The update is scaled by ``alpha / r``.
    dropout
        Dropout rate of the input of the adapter.
    target_modules
        Linear layers to adapt: suffixes of their names (``["query", "value"]``), or a regular expression for whole
        names. By default all linear layers in attention and feed-forward, whatever the architecture calls them.
    layers
        Indices of the layers to adapt, from 0; all by default.
    bias
        Biases to train: ``none``, ``all`` of the encoder, or ``lora_only`` for those of the adapted layers.
    use_dora
        Train the length of each column separately from its direction (DoRA): closer to full training at low ranks, but
        slower.
    use_rslora
        Scale by ``alpha / sqrt(r)``, for high ranks.
    init
        Initialisation. With ``default``, ``gaussian`` and ``orthogonal`` the output does not change at first. ``pissa``
        and ``olora`` initialise from the weights and change these, so that the adapter cannot be saved on its own.
    save
        ``full``, ``adapter`` or ``merged``; see :class:`Adapter`.

    Notes
    -----
    Source: Hu et al. (2021), arXiv:2106.09685; DoRA: Liu et al. (2024), arXiv:2402.09353.
    """

    def __init__(
        self,
        r: Size = 16,
        alpha: Positive = 32,
        dropout: Rate = 0.05,
        target_modules: list[str] | str | None = None,
        layers: list[Amount] | None = None,
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
