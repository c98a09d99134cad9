"""Builds installable packages of pipelines: options, requirements, model card, source tree, wheel."""
