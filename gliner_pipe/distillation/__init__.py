"""From a pipeline that is slow or open to one that is fast: texts it annotated, and how close the other comes."""
