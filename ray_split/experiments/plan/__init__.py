"""Where to cut a model, for a phone and a link."""
