"""The spaCy side: components, annotation of documents, saving and loading."""
