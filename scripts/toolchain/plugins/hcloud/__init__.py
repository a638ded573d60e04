"""`pulumi-resource-hcloud`: stands in for the vendor's Hetzner Cloud provider where that cannot be downloaded."""
