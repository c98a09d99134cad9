"""Backbones compute one vector per word for a text of any length; importing registers the built-in ones."""

import gliner_pipe.modeling.backbones.stacked
import gliner_pipe.modeling.backbones.text_cnn
import gliner_pipe.modeling.backbones.transformer  # noqa: F401
