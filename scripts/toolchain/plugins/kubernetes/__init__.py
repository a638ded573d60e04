"""`pulumi-resource-kubernetes`: stands in for the vendor's Kubernetes provider where that cannot be downloaded."""
