"""A round of a finished run, as rows and bars."""
