"""Texts in, predicted entities out: what the prediction command is made of."""

from gliner_pipe.prediction.cluster import ArrowPredictor, predict_ray, predict_spark

__all__ = ["ArrowPredictor", "predict_ray", "predict_spark"]
