"""What crosses between the actors: states, messages, reports; and what phones may send."""
