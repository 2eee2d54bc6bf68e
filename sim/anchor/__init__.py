"""A stack moved to where a few measured steps of one's own cluster are, and what that knowledge is worth."""
