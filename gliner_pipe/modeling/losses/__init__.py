"""Losses; importing registers the built-in ones."""

import gliner_pipe.modeling.losses.bce
import gliner_pipe.modeling.losses.dice
import gliner_pipe.modeling.losses.focal  # noqa: F401
