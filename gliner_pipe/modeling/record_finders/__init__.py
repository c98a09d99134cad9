"""Record finders: records, that is groups of values, of a text."""
