"""Relation layers propose related entity pairs."""
