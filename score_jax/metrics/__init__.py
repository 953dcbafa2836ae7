"""Metrics of samples against data: pure functions of NumPy arrays of features, in float64."""
