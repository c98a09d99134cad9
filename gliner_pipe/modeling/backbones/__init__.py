"""Backbones compute one vector per word for a text of any length."""
