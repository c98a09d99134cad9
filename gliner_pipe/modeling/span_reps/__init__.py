"""Span representations score every span for every label."""
