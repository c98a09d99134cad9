"""Encoders compute the vectors of words and labels; importing registers the built-in ones."""

import gliner_pipe.modeling.encoders.bi_encoder
import gliner_pipe.modeling.encoders.plain
import gliner_pipe.modeling.encoders.uni_encoder  # noqa: F401
