"""Ray: the cluster, the actors that train, Ray Tune around them, Ray Train for several workers."""
