"""Decoders turn scores into entities; importing registers the built-in ones."""

import gliner_pipe.modeling.decoders.crf
import gliner_pipe.modeling.decoders.generative
import gliner_pipe.modeling.decoders.softmax
import gliner_pipe.modeling.decoders.span  # noqa: F401
