"""Trackers that `config.report.trackers` names, one a file; engine/tracking.py is the interface."""
