"""What to buy, when and where: the programme, its diagnosis, a build-out and the whole answer."""
