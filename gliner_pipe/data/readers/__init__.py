"""The readers of annotated files, one module for each format. A further module needs no line here."""

from gliner_pipe.data.readers.base import Reader, Record
from gliner_pipe.data.readers.bio import BioReader, bio
from gliner_pipe.data.readers.conll import ConllReader, conll
from gliner_pipe.data.readers.gliner2_json import Gliner2JsonReader, gliner2_json
from gliner_pipe.data.readers.json import GlinerJsonReader, JsonlReader, gliner_json, jsonl
from gliner_pipe.data.readers.standoff import StandoffReader, standoff

__all__ = [
    "BioReader",
    "ConllReader",
    "Gliner2JsonReader",
    "GlinerJsonReader",
    "JsonlReader",
    "Reader",
    "Record",
    "StandoffReader",
    "bio",
    "conll",
    "gliner2_json",
    "gliner_json",
    "jsonl",
    "standoff",
]
