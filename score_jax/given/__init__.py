"""What samples are to be like, from the words of config.guidance."""
