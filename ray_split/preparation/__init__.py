"""What is checked and settled before an actor starts."""
