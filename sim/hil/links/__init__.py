"""Links: collectives timed between real processes, and the network file that they make."""
