"""The config of the component ``gliner_spacy`` of the package gliner-spacy becomes one of ``gliner``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gliner_pipe.migration.names import unknown
from gliner_pipe.migration.routing import Given, route
from gliner_pipe.migration.tables import GLINER_SPACY

#: What gliner-spacy uses where its config says nothing.
DEFAULTS: Mapping[str, Any] = {
    "gliner_model": "urchade/gliner_base",
    "labels": ["person", "organization", "school"],
    "style": "ent",
    "map_location": "cpu",
}
#: Our settings for each ``style``.
STYLES: Mapping[str, Mapping[str, Any]] = {
    "ent": {"overwrite_ents": True},
    "span": {"flat_ner": False, "spans_key": "sc", "annotate_ents": False},
}


def from_gliner_spacy(
    config: Mapping[str, Any], note: Callable[[str], object] = lambda line: None
) -> dict[str, Any]:
    """Return the config of ``gliner`` for that of ``gliner_spacy``.

    Parameters
    ----------
    config
        The config for ``nlp.add_pipe("gliner_spacy", config=...)``; its defaults are those of gliner-spacy.
    note
        Called with a line for each option that changes nothing.

    Returns
    -------
    dict
        The config for ``nlp.add_pipe("gliner", config=...)``.

    Raises
    ------
    ConfigError
        For an unknown option, a value that is not allowed, or an ONNX model.
    """
    rows = {row.name: row for row in GLINER_SPACY}
    given = []
    for name, value in {**DEFAULTS, **config}.items():
        if name not in rows:
            raise unknown(name, f"gliner_spacy.{name}", list(rows), ", ".join(rows))
        given.append(Given(rows[name], value, f"gliner_spacy.{name}"))
    routed = route(given)
    for line in routed.notes:
        note(line)
    return {**routed.within("components.gliner"), **STYLES[routed.parts["style"]]}
