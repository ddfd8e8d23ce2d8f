"""Metrics, significance, selection and reports."""
