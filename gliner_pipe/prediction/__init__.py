"""Prediction over streams of texts, over files and shards, and in data sets of Ray and Spark."""

from gliner_pipe.prediction.arrow_predictor import ArrowPredictor, predict_ray, predict_spark

__all__ = ["ArrowPredictor", "predict_ray", "predict_spark"]
