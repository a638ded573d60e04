"""The Pulumi language host for Python programs.

`program` decides how a program is started, `host` answers the engine.
"""
