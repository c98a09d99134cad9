"""Evaluation of pipelines on annotated data: scores, thresholds, comparisons, reports."""
