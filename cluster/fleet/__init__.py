"""Ray: the cluster's machines, and the processes of workers on them."""
