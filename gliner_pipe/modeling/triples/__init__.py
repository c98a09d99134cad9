"""Triple scorers classify the relation of an entity pair; importing registers the built-in ones."""

import gliner_pipe.modeling.triples.bilinear
import gliner_pipe.modeling.triples.distance
import gliner_pipe.modeling.triples.neural  # noqa: F401
