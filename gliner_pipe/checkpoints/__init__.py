"""Reads and writes checkpoints of other libraries: GLiNER and Hugging Face token classification."""
