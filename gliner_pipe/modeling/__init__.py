"""Models in plain torch: tensors in, scores out; nothing here knows spaCy."""
