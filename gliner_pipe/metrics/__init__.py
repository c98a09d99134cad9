"""Scores of predicted spans against gold ones, and the measuring of a whole pipeline."""
