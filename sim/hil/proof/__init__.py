"""The proof: small models really train, and their steps are held against the prediction."""
