"""What ``python -m gliner_pipe.package`` is made of: options, requirements, card, source tree, build."""
