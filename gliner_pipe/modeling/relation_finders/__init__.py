"""Relation finders: relations that the model reads as tasks."""
