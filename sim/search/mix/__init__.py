"""Several kinds of device in one job: stages on different pools, or replicas, and which mix is best."""
