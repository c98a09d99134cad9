"""Metrics of predicted against gold annotations; importing this package registers the built-in scorers."""

import gliner_pipe.metrics.confusion
import gliner_pipe.metrics.relations
import gliner_pipe.metrics.seqeval
import gliner_pipe.metrics.spans
import gliner_pipe.metrics.token_tags  # noqa: F401
