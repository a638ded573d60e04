"""Settings of slipway:registry that the tests of its parts begin with."""

LEAST = {
    "host": "198.51.100.8:30500",
    "storage": {"size": "5Gi"},
    "service": {"nodePort": 30500},
    "kubeconfig": "~/.kube/prod",
}
"""As little as one can say."""
BEHIND = {**LEAST, "host": "registry.example.com", "service": {"ingress": {"class": "nginx"}}}
"""Behind an Ingress."""
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
