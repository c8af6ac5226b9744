"""What a command is asked, from its words: flags, their help, and what is wrong with them in one line."""
