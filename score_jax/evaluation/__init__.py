"""Judging samples: metrics of features, the features, and the command that reports them."""
