"""Forecasts over HTTP with Ray Serve."""
