"""Schedulers of users, in processes of their own: asked, bounded, and never left behind.

`scheduler` is what the fleet holds of one, `child` runs it, `mirror` is the fleet as it sees it there;
`kept` starts a program under a `keeper`, which ends all that it started.
"""
