"""Decoders turn scores into entities."""
