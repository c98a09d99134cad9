"""Texts in, predicted entities out: what the prediction command is made of."""
