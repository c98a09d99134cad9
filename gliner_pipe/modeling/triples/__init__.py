"""Triple scorers classify the relation of an entity pair."""
