"""Helpers without models or documents: atomic writing, locks, redaction, consent, prefetching, the hub client."""
