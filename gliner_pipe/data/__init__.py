"""Reading, checking, splitting, sampling, batching and writing of annotated documents."""
