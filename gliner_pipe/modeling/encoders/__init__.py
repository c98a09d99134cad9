"""Encoders compute the vectors of words and labels."""
