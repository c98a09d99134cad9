"""An HTTP server for pipelines: requests of many clients are predicted together."""
