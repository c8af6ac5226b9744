"""The actors on Ray; only here is ray imported."""
