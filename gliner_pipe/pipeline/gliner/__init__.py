"""The component ``gliner``: entities and relations of labels given at run time."""
