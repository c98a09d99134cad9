"""Importing this module registers every block that the package ships."""

import gliner_pipe.backbones.transformer
import gliner_pipe.data.readers
import gliner_pipe.decoders.span
import gliner_pipe.encoders.uni_encoder
import gliner_pipe.fusions.cross_attention
import gliner_pipe.losses.bce
import gliner_pipe.losses.focal
import gliner_pipe.metrics.spans
import gliner_pipe.model.gliner
import gliner_pipe.model.pretrained
import gliner_pipe.span_reps.markerV0
import gliner_pipe.word_splitters.spacy
import gliner_pipe.word_splitters.whitespace  # noqa: F401
