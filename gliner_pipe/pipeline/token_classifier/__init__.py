"""What the component ``token_classifier`` does besides running its model."""
