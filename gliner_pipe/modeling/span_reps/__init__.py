"""Span representations score every span for every label; importing registers the built-in ones."""

import gliner_pipe.modeling.span_reps.convolution
import gliner_pipe.modeling.span_reps.first_word
import gliner_pipe.modeling.span_reps.marker
import gliner_pipe.modeling.span_reps.token_level  # noqa: F401
