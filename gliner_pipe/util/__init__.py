"""Helpers that know nothing of models or documents: atomic writing, redaction, prefetching."""
