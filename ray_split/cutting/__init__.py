"""Cutting a model into segments: traced, taken apart, and tried beside the untouched model."""
