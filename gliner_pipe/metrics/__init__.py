"""Metrics of predicted against gold annotations."""
