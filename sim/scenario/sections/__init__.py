"""The sections of a scenario file, and the words in which all files speak."""
