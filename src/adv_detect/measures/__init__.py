"""Measurement and tabulation of results: metrics with intervals, tables for readers, face recognition."""
