"""Pulumi plugins that stand in where the vendor's cannot be downloaded."""
