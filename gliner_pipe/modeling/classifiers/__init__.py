"""Classifiers: scores of the labels of a whole text."""
