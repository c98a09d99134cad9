"""Relation layers propose related entity pairs; importing registers the built-in ones."""

import gliner_pipe.modeling.relation_layers.graph
import gliner_pipe.modeling.relation_layers.pairwise  # noqa: F401
