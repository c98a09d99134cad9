"""The component ``token_classifier``: a tagger with a closed label set."""
