"""Models of Hugging Face's transformers that are cut between their blocks."""
