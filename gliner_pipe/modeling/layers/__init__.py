"""Layers and tensor helpers that blocks are built from."""
