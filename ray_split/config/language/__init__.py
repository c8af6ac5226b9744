"""Settings of language models, and the packages that they need."""
