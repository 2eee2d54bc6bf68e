"""Kueue's rules for who gets quota, as read in its code: a queue's configuration, rehearsed on a fleet."""
