"""What settings leave open and what can't be, a section each: looked at before the model is."""
