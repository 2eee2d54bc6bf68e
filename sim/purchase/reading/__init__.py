"""Files of `ersatz buy`: their schema, and what they say resolved to a build-out."""
