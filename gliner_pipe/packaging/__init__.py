"""What ``python -m gliner_pipe.package`` is made of: options, requirements, metadata, card, sources, build."""
