"""Launch files of others on the command line, in and out."""
