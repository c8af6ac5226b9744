"""Runs told to experiment trackers, through their own libraries: callbacks that `run.callbacks` names."""
