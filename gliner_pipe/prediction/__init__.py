"""Texts in, predicted entities out: what the prediction command is made of."""

from gliner_pipe.prediction.arrow_predictor import ArrowPredictor
from gliner_pipe.prediction.cluster import predict_ray, predict_spark

__all__ = ["ArrowPredictor", "predict_ray", "predict_spark"]
