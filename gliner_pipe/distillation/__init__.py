"""Distillation: a teacher annotates texts, and a student learns from the annotations."""
